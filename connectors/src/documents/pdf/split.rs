//! PDF split: which pages go into which file.

use pipeline::documents::Split;

/// The pages of each file.
///
/// # Errors
/// A sentence that names the range that the document does not have.
pub(super) fn split_pages<P: Copy>(split: &Split, pages: &[P]) -> Result<Vec<Vec<P>>, String> {
    match split {
        Split::Every(count) => Ok(pages.chunks((*count as usize).max(1)).map(<[P]>::to_vec).collect()),
        Split::Ranges { ranges, unify } => {
            let parts = ranges.iter().map(|(first, last)| range(pages, *first, *last));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            Ok(if *unify { vec![parts.concat()] } else { parts.into_iter().map(<[P]>::to_vec).collect() })
        }
    }
}

fn range<P>(pages: &[P], first: u32, last: u32) -> Result<&[P], String> {
    let found = pages.get((first as usize).saturating_sub(1)..last as usize);
    found.ok_or_else(|| format!("pages {first} to {last} are requested, the document has {}", pages.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_split_by_count_and_by_ranges() {
        let pages = [1, 2, 3, 4, 5];
        assert_eq!(split_pages(&Split::Every(2), &pages).unwrap(), [vec![1, 2], vec![3, 4], vec![5]]);
        let ranges = |unify| Split::Ranges { ranges: vec![(2, 3), (3, 3)], unify };
        assert_eq!(split_pages(&ranges(false), &pages).unwrap(), [vec![2, 3], vec![3]]);
        assert_eq!(split_pages(&ranges(true), &pages).unwrap(), [vec![2, 3, 3]]);
        let beyond = Split::Ranges { ranges: vec![(4, 6)], unify: true };
        assert!(split_pages(&beyond, &pages).unwrap_err().contains("the document has 5"));
    }
}
