//! Natural sort order of file names: numbers compare by value (`2` before `10` before `a`).

use std::cmp::Ordering;

/// Compares two names in natural order.
pub fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (left, right) = (piece(one), piece(other));
        let number = |piece: &str| piece.trim_start_matches('0').to_owned();
        let both_numbers =
            left.starts_with(|c: char| c.is_ascii_digit()) && right.starts_with(|c: char| c.is_ascii_digit());
        let found = if both_numbers {
            let (left, right) = (number(left), number(right));
            left.len().cmp(&right.len()).then(left.cmp(&right))
        } else {
            left.cmp(right)
        };
        if found.is_ne() || left.is_empty() {
            return found;
        }
        (one, other) = (&one[left.len()..], &other[right.len()..]);
    }
}

/// The leading number of a name, or everything before its first number.
fn piece(name: &str) -> &str {
    let is_number = name.starts_with(|c: char| c.is_ascii_digit());
    &name[..name.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        let mut names = ["b", "a10", "10", "a9", "2", "a9b", "a09", "", "a"];
        names.sort_by(|one, other| natural_order(one, other));
        assert_eq!(names, ["", "2", "10", "a", "a9", "a09", "a9b", "a10", "b"]);
    }
}
