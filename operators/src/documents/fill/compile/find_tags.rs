//! Finds the tags in the concatenated text of all runs, and joins tags that are spread over several runs.

use super::compilation::{Bit, Compilation, Segment};
use crate::documents::fill::error::FillError;
use crate::documents::fill::tag::{Level, TagKind, begins, next_begin, read};

/// Statements of Jinja that refer to other templates, or change the escaping.
const REFUSED: [&str; 7] = ["include", "import", "from", "extends", "block", "endblock", "autoescape"];

impl Compilation<'_> {
    /// Reads the text of all runs as one, finds its tags, and assigns text and tags to the runs.
    pub(super) fn find_tags(&mut self) -> Result<(), FillError> {
        self.segments = self.segments();
        let mut at = 0;
        let mut looked = 0;
        while let Some(begin) = next_begin(&self.all, looked) {
            let (first, second) = (self.segment_at(begin), self.segment_at(begin + 1));
            if self.segments[first].paragraph != self.segments[second].paragraph {
                // A brace at the end of one paragraph and one at the start of the next are not a delimiter.
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

    /// The segment whose text includes `offset`.
    fn segment_at(&self, offset: usize) -> usize {
        self.segments.partition_point(|segment| segment.start <= offset).saturating_sub(1)
    }

    fn end_of(&self, segment: usize) -> usize {
        self.segments.get(segment + 1).map_or(self.all.len(), |next| next.start)
    }

    /// Assigns text outside tags to its runs.
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

    /// Reads the tag at `begin`; returns the offset after it.
    fn tag(&mut self, begin: usize, segment: usize) -> Result<usize, FillError> {
        let end = self.end_of(self.segments[segment].last);
        let Some(tag) = read(&self.all, begin, end) else {
            let shown: String = self.all[begin..end].chars().take(60).collect();
            let close = if begins(&self.all, begin) == Some(TagKind::Print) { "}}" } else { "%} or #}" };
            let message = format!("a tag begins with {shown:?} and does not end; close it with {close}");
            return Err(FillError::syntax(message, self.place(self.segments[segment].piece, None)));
        };
        let (keyword, _) = tag.keyword();
        if REFUSED.contains(&keyword) {
            let message = format!("the statement {keyword:?} is not supported in documents; remove it");
            return Err(FillError::syntax(message, self.place(self.segments[segment].piece, Some(&tag))));
        }
        let after = tag.range.1;
        if keyword == "raw" && tag.level == Level::Text {
            return Ok(self.raw(after));
        }
        let home = self.home(segment);
        self.join_runs(home, self.segment_at(after - 1));
        self.segments[home].bits.push(Bit::Tag(self.tags.len()));
        self.tags.push(tag);
        self.seats.push(home);
        Ok(after)
    }

    /// Treats the text up to `endraw` as literal; returns the offset after it, or the end.
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

    /// Joins the runs that a tag is spread over into one: the first run gets the tag and the rest of the last run. If
    /// that would split other elements, the first run gets only the text of the tag.
    fn join_runs(&mut self, first: usize, last: usize) {
        if self.home(last) == first {
            return;
        }
        let (from, to) = (self.segments[first].piece, self.segments[last].piece);
        if self.tree.join(from, to) {
            self.tree.pieces[to].gone = true;
            self.segments[last].home = first;
        }
    }

    /// `{%-` and `-%}` join the text before and after them across paragraph boundaries.
    pub(super) fn merge_by_signs(&mut self) {
        for tag in 0..self.tags.len() {
            let (begin, end) = self.tags[tag].signs;
            if self.tags[tag].kind != TagKind::Statement {
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
                let length = self.all[range.clone()].trim_end().len();
                self.segments[segment].bits[place - 1] = Bit::Text(range.start..range.start + length);
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
                let length = self.all[range.clone()].trim_start().len();
                self.segments[segment].bits[place + 1] = Bit::Text(range.end - length..range.end);
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

    /// Merges the second segment into the first, if both are in the same container.
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
