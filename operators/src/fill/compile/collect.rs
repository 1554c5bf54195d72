//! Finds the tags in the text of all runs, and makes each one whole.

use super::{Bit, FillError, Segment, Work};
use crate::fill::tag::{Does, Level, begins, next_begin, read};

/// Statements of Jinja that would reach beyond the template.
const REFUSED: [&str; 7] = ["include", "import", "from", "extends", "block", "endblock", "autoescape"];

impl Work<'_> {
    /// Reads the text of all runs as one, finds its tags, and gives every run its share.
    pub(super) fn collect(&mut self) -> Result<(), FillError> {
        self.segments = self.segments();
        let mut at = 0;
        let mut looked = 0;
        while let Some(begin) = next_begin(&self.all, looked) {
            let (first, second) = (self.segment_at(begin), self.segment_at(begin + 1));
            if self.segments[first].paragraph != self.segments[second].paragraph {
                // A brace that ends one paragraph and one that begins the next are no delimiter.
                looked = begin + 1;
                continue;
            }
            self.literal(at, begin);
            at = self.tag(begin, first)?;
            looked = at;
        }
        self.literal(at, self.all.len());
        self.consumed = vec![false; self.tags.len()];
        Ok(())
    }

    fn segments(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        for piece in 0..self.tree.pieces.len() {
            if !self.tree.is_run_text(piece) {
                continue;
            }
            let (start, container) = (self.all.len(), self.tree.container(piece));
            let paragraph = self.tree.around(piece, "w:p").unwrap_or(usize::MAX);
            self.all.push_str(self.tree.pieces[piece].raw);
            let home = segments.len();
            segments.push(Segment { piece, start, container, paragraph, last: home, home, bits: Vec::new() });
        }
        for segment in (1..segments.len()).rev() {
            if segments[segment - 1].container == segments[segment].container {
                segments[segment - 1].last = segments[segment].last;
            }
        }
        segments
    }

    /// The segment whose characters include `offset`.
    fn segment_at(&self, offset: usize) -> usize {
        self.segments.partition_point(|segment| segment.start <= offset).saturating_sub(1)
    }

    fn end_of(&self, segment: usize) -> usize {
        self.segments.get(segment + 1).map_or(self.all.len(), |next| next.start)
    }

    /// Gives characters that are no tag to the runs they are in.
    fn literal(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let segment = self.segment_at(at);
            let end = self.end_of(segment).min(to);
            let home = self.home(segment);
            self.segments[home].bits.push(Bit::Text(at..end));
            at = end;
        }
    }

    /// Takes the tag that begins at `begin`; gives the offset behind it.
    fn tag(&mut self, begin: usize, segment: usize) -> Result<usize, FillError> {
        let end = self.end_of(self.segments[segment].last);
        let Some(tag) = read(&self.all, begin, end) else {
            let shown: String = self.all[begin..end].chars().take(60).collect();
            let close = if begins(&self.all, begin) == Some(Does::Print) { "}}" } else { "%} or #}" };
            let message = format!("a tag begins with {shown:?} and does not end; close it with {close}");
            return Err(FillError::syntax(message, self.place(self.segments[segment].piece, None)));
        };
        let (keyword, _) = tag.keyword();
        if REFUSED.contains(&keyword) {
            let message = format!("the statement {keyword:?} is not taken in documents");
            return Err(FillError::syntax(message, self.place(self.segments[segment].piece, Some(&tag))));
        }
        let after = tag.range.1;
        if keyword == "raw" && tag.level == Level::Text {
            return Ok(self.raw(after));
        }
        let home = self.home(segment);
        self.heal(home, self.segment_at(after - 1));
        self.segments[home].bits.push(Bit::Tag(self.tags.len()));
        self.tags.push(tag);
        self.seats.push(home);
        Ok(after)
    }

    /// Characters up to `endraw` are no tags; gives the offset behind it, or the end.
    fn raw(&mut self, from: usize) -> usize {
        let mut at = from;
        while let Some(begin) = next_begin(&self.all, at) {
            match read(&self.all, begin, self.all.len()) {
                Some(tag) if tag.keyword().0 == "endraw" => {
                    self.literal(from, begin);
                    return tag.range.1;
                }
                _ => at = begin + 2,
            }
        }
        self.literal(from, self.all.len());
        self.all.len()
    }

    /// A tag spread over runs is taken over by the first, and what follows it in the last run comes along: it is one run
    /// then. Where that would tear elements apart the first run takes the tag's characters alone.
    fn heal(&mut self, first: usize, last: usize) {
        if self.home(last) == first {
            return;
        }
        let (from, to) = (self.segments[first].piece, self.segments[last].piece);
        if self.tree.join(from, to) {
            self.tree.pieces[to].gone = true;
            self.segments[last].home = first;
        }
    }

    /// `{%-` and `-%}` join the text before and behind them over the ends of paragraphs.
    pub(super) fn merge_by_signs(&mut self) {
        for tag in 0..self.tags.len() {
            let (begin, end) = self.tags[tag].signs;
            if self.tags[tag].does != Does::Statement {
                continue;
            }
            self.tags[tag].signs = (None, None);
            if begin == Some('-') {
                self.merge_before(tag);
            }
            if end == Some('-') {
                self.merge_behind(tag);
            }
        }
    }

    fn merge_before(&mut self, tag: usize) {
        let segment = self.home(self.seats[tag]);
        let Some(place) = self.place_in(segment, tag) else { return };
        match self.segments[segment].bits[..place].last().cloned() {
            Some(Bit::Text(range)) if !self.blank(&range) => {
                let kept = self.all[range.clone()].trim_end().len();
                self.segments[segment].bits[place - 1] = Bit::Text(range.start..range.start + kept);
            }
            Some(Bit::Tag(_)) => {}
            _ => {
                let Some(before) = (0..segment).rev().find(|&other| self.segments[other].home == other) else { return };
                if place <= 1 && self.merge(before, segment) {
                    let mut bits = std::mem::take(&mut self.segments[segment].bits);
                    self.segments[before].bits.extend(bits.drain(place..));
                }
            }
        }
    }

    fn merge_behind(&mut self, tag: usize) {
        let segment = self.home(self.seats[tag]);
        let Some(place) = self.place_in(segment, tag) else { return };
        match self.segments[segment].bits.get(place + 1).cloned() {
            Some(Bit::Text(range)) if !self.blank(&range) => {
                let kept = self.all[range.clone()].trim_start().len();
                self.segments[segment].bits[place + 1] = Bit::Text(range.end - kept..range.end);
            }
            Some(Bit::Tag(_)) => {}
            _ => {
                let own = |other: &usize| self.segments[*other].home == *other;
                let Some(behind) = (segment + 1..self.segments.len()).find(own) else { return };
                if self.segments[segment].bits.len() <= place + 2 && self.merge(segment, behind) {
                    let bits = std::mem::take(&mut self.segments[behind].bits);
                    self.segments[segment].bits.truncate(place + 1);
                    self.segments[segment].bits.extend(bits);
                }
            }
        }
    }

    /// Makes the second segment a part of the first, if both are in one container.
    fn merge(&mut self, first: usize, second: usize) -> bool {
        let (from, to) = (self.segments[first].piece, self.segments[second].piece);
        if self.segments[first].container != self.segments[second].container || !self.tree.join(from, to) {
            return false;
        }
        self.tree.pieces[to].gone = true;
        self.segments[second].home = first;
        true
    }

    fn place_in(&self, segment: usize, tag: usize) -> Option<usize> {
        self.segments[segment].bits.iter().position(|bit| matches!(bit, Bit::Tag(found) if *found == tag))
    }

    fn blank(&self, range: &std::ops::Range<usize>) -> bool {
        self.all[range.clone()].trim().is_empty()
    }
}
