//! Which pages go into which file.

use pipeline::documents::Split;

/// The pages of each file.
///
/// # Errors
/// The range that is not there, of how many pages.
pub(super) fn pieces<P: Copy>(split: &Split, pages: &[P]) -> Result<Vec<Vec<P>>, String> {
    match split {
        Split::Every(count) => Ok(pages.chunks((*count as usize).max(1)).map(<[P]>::to_vec).collect()),
        Split::Ranges { ranges, unify } => {
            let taken = ranges.iter().map(|(first, last)| range(pages, *first, *last));
            let taken = taken.collect::<Result<Vec<_>, _>>()?;
            Ok(if *unify { vec![taken.concat()] } else { taken.into_iter().map(<[P]>::to_vec).collect() })
        }
    }
}

fn range<P>(pages: &[P], first: u32, last: u32) -> Result<&[P], String> {
    let found = pages.get((first as usize).saturating_sub(1)..last as usize);
    found.ok_or_else(|| format!("pages {first} to {last} are asked for, there are {}", pages.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_where_they_belong() {
        let pages = [1, 2, 3, 4, 5];
        assert_eq!(pieces(&Split::Every(2), &pages).unwrap(), [vec![1, 2], vec![3, 4], vec![5]]);
        let ranges = |unify| Split::Ranges { ranges: vec![(2, 3), (3, 3)], unify };
        assert_eq!(pieces(&ranges(false), &pages).unwrap(), [vec![2, 3], vec![3]]);
        assert_eq!(pieces(&ranges(true), &pages).unwrap(), [vec![2, 3, 3]]);
        let beyond = Split::Ranges { ranges: vec![(4, 6)], unify: true };
        assert!(pieces(&beyond, &pages).unwrap_err().contains("there are 5"));
    }
}
