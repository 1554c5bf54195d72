//! Gotenberg's fields that are settings of LibreOffice's PDF export: their names there, accepted values and defaults.
//! The defaults are Gotenberg's, which sometimes differ from LibreOffice's.
//!
//! LibreOffice describes them in its help, "PDF Export Command Line Parameters".

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use pipeline::documents::Setting;

/// The type of a field: accepted values and default.
enum FieldType {
    Switch(bool),
    Number(RangeInclusive<i32>, i32),
}

use FieldType::{Number, Switch};

/// The field, the setting, and their type.
const SETTINGS: [(&str, &str, FieldType); 30] = [
    ("exportFormFields", "ExportFormFields", Switch(true)),
    ("allowDuplicateFieldNames", "AllowDuplicateFieldNames", Switch(false)),
    ("exportBookmarks", "ExportBookmarks", Switch(true)),
    ("exportBookmarksToPdfDestination", "ExportBookmarksToPDFDestination", Switch(false)),
    ("exportPlaceholders", "ExportPlaceholders", Switch(false)),
    ("exportNotes", "ExportNotes", Switch(false)),
    ("exportNotesPages", "ExportNotesPages", Switch(false)),
    ("exportOnlyNotesPages", "ExportOnlyNotesPages", Switch(false)),
    ("exportNotesInMargin", "ExportNotesInMargin", Switch(false)),
    ("convertOooTargetToPdfTarget", "ConvertOOoTargetToPDFTarget", Switch(false)),
    ("exportLinksRelativeFsys", "ExportLinksRelativeFsys", Switch(false)),
    ("exportHiddenSlides", "ExportHiddenSlides", Switch(false)),
    ("skipEmptyPages", "IsSkipEmptyPages", Switch(false)),
    ("addOriginalDocumentAsStream", "IsAddStream", Switch(false)),
    ("singlePageSheets", "SinglePageSheets", Switch(false)),
    ("initialView", "InitialView", Number(0..=2, 0)),
    ("initialPage", "InitialPage", Number(1..=i32::MAX, 1)),
    ("magnification", "Magnification", Number(0..=4, 0)),
    ("zoom", "Zoom", Number(1..=6400, 100)),
    ("pageLayout", "PageLayout", Number(0..=3, 0)),
    ("firstPageOnLeft", "FirstPageOnLeft", Switch(false)),
    ("resizeWindowToInitialPage", "ResizeWindowToInitialPage", Switch(false)),
    ("centerWindow", "CenterWindow", Switch(false)),
    ("openInFullScreenMode", "OpenInFullScreenMode", Switch(false)),
    ("displayPDFDocumentTitle", "DisplayPDFDocumentTitle", Switch(true)),
    ("hideViewerMenubar", "HideViewerMenubar", Switch(false)),
    ("hideViewerToolbar", "HideViewerToolbar", Switch(false)),
    ("hideViewerWindowControls", "HideViewerWindowControls", Switch(false)),
    ("useTransitionEffects", "UseTransitionEffects", Switch(true)),
    ("openBookmarkLevels", "OpenBookmarkLevels", Number(-1..=10, -1)),
];

/// Whether a field is an export setting.
pub fn has(field: &str) -> bool {
    SETTINGS.iter().any(|(known, ..)| *known == field)
}

/// Every setting, with the value of the form or the default.
///
/// # Errors
/// The field, its value, and what is expected.
pub fn read(
    given: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Setting>, (&'static str, String, String)> {
    let one = |(field, setting, takes): &(&'static str, &str, FieldType)| {
        let value = match given(field) {
            None => takes.default_value(),
            Some(text) => takes.read(&text).map_err(|takes| (*field, text, takes))?,
        };
        Ok(((*setting).to_owned(), value))
    };
    SETTINGS.iter().map(one).collect()
}

impl FieldType {
    fn default_value(&self) -> Setting {
        match self {
            Switch(default) => Setting::Switch(*default),
            Number(_, default) => Setting::Number(*default),
        }
    }

    fn read(&self, given: &str) -> Result<Setting, String> {
        match self {
            Switch(_) => match given {
                "true" | "1" => Ok(Setting::Switch(true)),
                "false" | "0" => Ok(Setting::Switch(false)),
                _ => Err("true or false".into()),
            },
            Number(range, _) => {
                let number = given.parse().ok().filter(|number| range.contains(number));
                number.map(Setting::Number).ok_or_else(|| format!("{} to {}", range.start(), range.end()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_value() {
        let read = |field: &str, text: &str| read(|asked| (asked == field).then(|| text.to_owned()));
        let settings = read("skipEmptyPages", "true").unwrap();
        assert_eq!(settings.len(), SETTINGS.len());
        assert_eq!(settings["IsSkipEmptyPages"], Setting::Switch(true));
        assert_eq!((settings["ExportNotes"], settings["Zoom"]), (Setting::Switch(false), Setting::Number(100)));
        for (field, text, takes) in [("initialView", "3", "0 to 2"), ("exportNotes", "maybe", "true or false")] {
            assert_eq!(read(field, text), Err((field, text.into(), takes.into())));
        }
        assert!(has("skipEmptyPages") && !has("quality"));
    }
}
