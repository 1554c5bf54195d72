//! Turns an error of the template engine into a [`FillError`] with the tag where it happened.

use minijinja::ErrorKind;

use super::compile::Site;
use super::error::{FillError, Place};

/// A place that names only the part.
pub(super) fn whole_part(name: &str) -> Place {
    Place { part: name.to_owned(), ..Place::default() }
}

/// An error of the engine, with the tag where it happened.
pub(super) fn explained(why: &minijinja::Error, part: &str, sites: &[Site]) -> FillError {
    let place = site_of(why, sites).map_or_else(|| whole_part(part), |site| site.place.clone());
    let message = why.detail().map_or_else(|| why.kind().to_string(), |detail| format!("{}: {detail}", why.kind()));
    let message: String = message.chars().take(300).collect();
    let error = match why.kind() {
        ErrorKind::UndefinedError => {
            let message = "the template uses a variable that is missing in the data; add it, or use the filter default";
            FillError::data("undefined_variable", message)
        }
        ErrorKind::OutOfFuel => {
            let message = "filling the template takes more steps than the limit; give it fewer rows, or split it";
            FillError::data("render_too_long", message)
        }
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::TemplateNotFound => return FillError::syntax(message, place),
        _ => FillError::data("render_failed", message),
    };
    error.at(place)
}

/// The last tag that begins at or before the position of an error.
fn site_of<'s>(why: &minijinja::Error, sites: &'s [Site]) -> Option<&'s Site> {
    let at = why.range()?.start;
    let behind = sites.partition_point(|site| site.offset <= at);
    sites.get(behind.saturating_sub(1))
}
