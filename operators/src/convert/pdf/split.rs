//! Which pages go into which file.

/// Files of one PDF at most.
const MOST_PIECES: usize = 1000;

/// How a PDF is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// As many pages to a file.
    Every(usize),
    /// These pages, first and last of each range counted from 1: a file for each range, or one for all.
    Ranges {
        /// First and last page.
        ranges: Vec<(u32, u32)>,
        /// Whether they go into one file.
        unify: bool,
    },
}

impl Split {
    /// The pages of each file, range by range.
    ///
    /// # Errors
    /// If pages are asked for that are not there, or more files than are made.
    pub fn pieces<P: Copy>(&self, pages: &[P]) -> Result<Vec<Vec<Vec<P>>>, String> {
        let pieces: Vec<Vec<Vec<P>>> = match self {
            Self::Every(count) => pages.chunks((*count).max(1)).map(|chunk| vec![chunk.to_vec()]).collect(),
            Self::Ranges { ranges, unify } => {
                let taken = ranges.iter().map(|(first, last)| range(pages, *first, *last));
                let taken = taken.collect::<Result<Vec<_>, _>>()?;
                if *unify { vec![taken] } else { taken.into_iter().map(|range| vec![range]).collect() }
            }
        };
        if pieces.len() > MOST_PIECES {
            return Err(format!("it would be split into {} files, at most {MOST_PIECES} are made", pieces.len()));
        }
        Ok(pieces)
    }
}

fn range<P: Copy>(pages: &[P], first: u32, last: u32) -> Result<Vec<P>, String> {
    let found = pages.get(first as usize - 1..last as usize);
    found.map(<[P]>::to_vec).ok_or_else(|| format!("pages {first} to {last} are asked for, there are {}", pages.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_where_they_belong() {
        let pages = [1, 2, 3, 4, 5];
        assert_eq!(Split::Every(2).pieces(&pages).unwrap(), [[vec![1, 2]], [vec![3, 4]], [vec![5]]]);
        let ranges = |unify| Split::Ranges { ranges: vec![(2, 3), (3, 3)], unify };
        assert_eq!(ranges(false).pieces(&pages).unwrap(), [[vec![2, 3]], [vec![3]]]);
        assert_eq!(ranges(true).pieces(&pages).unwrap(), [[vec![2, 3], vec![3]]]);
        assert!(
            Split::Ranges { ranges: vec![(4, 6)], unify: true }.pieces(&pages).unwrap_err().contains("there are 5")
        );
        assert!(Split::Every(1).pieces(&[0; 1001]).unwrap_err().contains("at most 1000"));
    }
}
