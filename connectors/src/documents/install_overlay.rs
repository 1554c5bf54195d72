//! The LibreOffice installation as a worker sees it: links to the real one, with missing UI layouts added.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Layouts of windows that LibreOffice builds even without a display, and that the `-nogui` packages leave out: Calc's
/// input line, without which no spreadsheet loads, and Writer's comment, without which no text with a comment loads.
/// These have the widgets that LibreOffice looks up by name and nothing else.
const LAYOUTS: [(&str, &str, &str); 3] =
    [("scalc", "inputbar.ui", INPUT_BAR), ("scalc", "posbox.ui", NAME_BOX), ("swriter", "annotation.ui", COMMENT)];
/// Path of the module folders below the installation.
const MODULES: [&str; 4] = ["share", "config", "soffice.cfg", "modules"];

const INPUT_BAR: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<interface>
  <object class="GtkBox" id="InputBar">
    <child><object class="GtkBox" id="background"><child>
      <object class="GtkScrolledWindow" id="scrolledwindow"><child>
        <object class="GtkViewport" id="viewport"><child>
          <object class="GtkDrawingArea" id="sc_input_window"/>
        </child></object>
      </child></object>
    </child></object></child>
    <child><object class="GtkButton" id="up"/></child>
    <child><object class="GtkButton" id="down"/></child>
  </object>
</interface>
"#;
const NAME_BOX: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<interface>
  <object class="GtkBox" id="PosWindow">
    <child><object class="GtkComboBoxText" id="pos_window">
      <property name="has_entry">True</property>
      <child internal-child="entry"><object class="GtkEntry" id="entry"/></child>
    </object></child>
  </object>
</interface>
"#;

const COMMENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<interface>
  <object class="GtkMenu" id="menu">
    <child><object class="GtkMenuItem" id="reply"/></child>
    <child><object class="GtkMenuItem" id="resolve"/></child>
    <child><object class="GtkMenuItem" id="unresolve"/></child>
    <child><object class="GtkMenuItem" id="resolvethread"/></child>
    <child><object class="GtkMenuItem" id="unresolvethread"/></child>
    <child><object class="GtkMenuItem" id="delete"/></child>
    <child><object class="GtkMenuItem" id="deletethread"/></child>
    <child><object class="GtkMenuItem" id="deleteby"/></child>
    <child><object class="GtkMenuItem" id="deleteall"/></child>
    <child><object class="GtkMenuItem" id="formatall"/></child>
  </object>
  <object class="GtkBox" id="Annotation">
    <child><object class="GtkScrolledWindow" id="scrolledwindow"><child>
      <object class="GtkViewport" id="viewport"><child>
        <object class="GtkDrawingArea" id="editview"/>
      </child></object>
    </child></object></child>
    <child><object class="GtkLabel" id="resolved"/></child>
    <child><object class="GtkLabel" id="author"/></child>
    <child><object class="GtkLabel" id="date"/></child>
    <child><object class="GtkMenuButton" id="menubutton"><property name="popup">menu</property></object></child>
  </object>
</interface>
"#;

/// Where the overlay of a worker in `folder` is; LibreOffice finds it by the variable `BRAND_BASE_DIR`.
pub(super) fn overlay_folder(folder: &Path) -> PathBuf {
    folder.join("office")
}

/// Content of a new profile: autotexts, Basic libraries, galleries. A conversion needs none of it, and LibreOffice
/// copies folders only, not links; so the overlay has an empty folder.
const PRESETS: &str = "presets";

/// Builds the overlay of the installation `office` in `overlay`.
///
/// # Errors
/// If the overlay cannot be written, or the installation cannot be read.
pub(super) fn write_overlay(office: &Path, overlay: &Path) -> io::Result<()> {
    link_all(office, overlay)?;
    remove_link(&overlay.join(PRESETS))?;
    fs::create_dir(overlay.join(PRESETS))?;
    for (module, name, layout) in LAYOUTS {
        let (mut original, mut copy) = (office.to_owned(), overlay.to_owned());
        for part in MODULES.into_iter().chain([module, "ui"]) {
            original.push(part);
            copy.push(part);
            replace_link_by_folder(&original, &copy)?;
        }
        if !original.join(name).exists() {
            fs::write(copy.join(name), layout)?;
        }
    }
    Ok(())
}

/// Replaces a link to a folder by a folder of links.
fn replace_link_by_folder(original: &Path, copy: &Path) -> io::Result<()> {
    if copy.is_dir() && !copy.is_symlink() {
        return Ok(());
    }
    remove_link(copy)?;
    link_all(original, copy)
}

fn remove_link(link: &Path) -> io::Result<()> {
    if link.is_symlink() { fs::remove_file(link) } else { Ok(()) }
}

fn link_all(original: &Path, copy: &Path) -> io::Result<()> {
    fs::create_dir(copy)?;
    let entries = match fs::read_dir(original) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        symlink(entry.path(), copy.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_shows_the_installation_and_the_layouts() {
        let place = tempfile::tempdir().unwrap();
        let office = place.path().join("real");
        let ui = office.join("share/config/soffice.cfg/modules/scalc/ui");
        fs::create_dir_all(&ui).unwrap();
        fs::create_dir_all(office.join("program")).unwrap();
        fs::write(office.join("program/versionrc"), "7").unwrap();
        fs::write(ui.join("posbox.ui"), "theirs").unwrap();
        let copy = place.path().join("copy");
        write_overlay(&office, &copy).unwrap();
        let read = |path: &str| fs::read_to_string(copy.join(path)).unwrap();
        assert_eq!(read("program/versionrc"), "7");
        assert_eq!(read("share/config/soffice.cfg/modules/scalc/ui/posbox.ui"), "theirs");
        assert!(read("share/config/soffice.cfg/modules/scalc/ui/inputbar.ui").contains("sc_input_window"));
    }
}
