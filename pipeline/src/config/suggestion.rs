//! "Did you mean": the known name that an unknown one resembles.

/// Likeness (Jaro-Winkler, 0 to 1) from which a name is suggested. A letter or two swapped, left out or added are above it.
const ALIKE: f64 = 0.75;

/// The known name that `wrong` resembles most; `None` if it resembles none.
fn closest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// What to do about an unknown name: `otherwise`, after the known name that it resembles, if there is one.
#[must_use]
pub fn did_you_mean<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>, otherwise: &str) -> String {
    match closest(wrong, known) {
        Some(name) => format!("did you mean `{name}`? Otherwise {otherwise}"),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised() {
        let known = ["name", "listen", "grace_ms", "origins"];
        for (wrong, meant) in
            [("listn", "listen"), ("lisetn", "listen"), ("Origin", "origins"), ("grace", "grace_ms"), ("nmae", "name")]
        {
            assert_eq!(closest(wrong, known), Some(meant), "{wrong}");
        }
    }

    #[test]
    fn another_word_is_not_taken_for_a_slip() {
        for wrong in ["colour", "x", "", "tls"] {
            assert_eq!(closest(wrong, ["name", "listen", "grace_ms"]), None, "{wrong}");
        }
    }
}
