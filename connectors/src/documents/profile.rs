//! What the engine starts from: a fresh profile that follows no links and runs no macros, and an installation that is whole.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The registry layer of the user, which wins over what the distribution set.
const REGISTRY: &str = "user/registrymodifications.xcu";

/// Path in the registry, property, value. The first three are the security of the profile: content that was not asked for
/// is not fetched, macros neither trusted nor run. Links are never updated (the scales of Writer and Calc differ). The proxy
/// at a closed port is for whatever gets past all that. Titles and authors come from no user data.
const SETTINGS: [(&str, &str, &str); 12] = [
    ("Office.Common/Security/Scripting", "BlockUntrustedRefererLinks", "true"),
    ("Office.Common/Security/Scripting", "DisableMacrosExecution", "true"),
    ("Office.Common/Security/Scripting", "MacroSecurityLevel", "3"),
    ("Office.Writer/Content/Update", "Link", "0"),
    ("Office.Calc/Content/Update", "Link", "1"),
    ("Inet/Settings", "ooInetProxyType", "2"),
    ("Inet/Settings", "ooInetHTTPProxyName", "127.0.0.1"),
    ("Inet/Settings", "ooInetHTTPProxyPort", "9"),
    ("Inet/Settings", "ooInetHTTPSProxyName", "127.0.0.1"),
    ("Inet/Settings", "ooInetHTTPSProxyPort", "9"),
    ("Office.Common/Save/Document", "CreateBackup", "false"),
    ("Office.Recovery/AutoSave", "Enabled", "false"),
];

/// Writes the profile into `folder`, which is new.
///
/// # Errors
/// If the folder cannot be written.
pub(super) fn write(folder: &Path, secure: bool) -> io::Result<()> {
    let file = folder.join(REGISTRY);
    fs::create_dir_all(folder.join("user"))?;
    if !secure {
        return Ok(());
    }
    let items: String = SETTINGS
        .iter()
        .map(|(path, name, value)| {
            format!(
                "<item oor:path=\"/org.openoffice.{path}\"><prop oor:name=\"{name}\" oor:op=\"fuse\">\
                 <value>{value}</value></prop></item>\n"
            )
        })
        .collect();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<oor:items xmlns:oor=\"http://openoffice.org/2001/registry\" \
         xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n\
         {items}</oor:items>\n"
    );
    fs::write(file, text)
}

/// Layouts of windows that the engine builds even where nobody sees them, and that packages without a user interface leave
/// out: Calc's input line, without which no spreadsheet loads, and Writer's comment, without which no text that has one
/// does. Ours have the widgets that the engine asks for by name, and nothing to look at.
const LAYOUTS: [(&str, &str, &str); 3] =
    [("scalc", "inputbar.ui", INPUT_BAR), ("scalc", "posbox.ui", NAME_BOX), ("swriter", "annotation.ui", COMMENT)];
/// Above the folders of the modules.
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

/// Where the overlay of a worker in `folder` is; the engine is told by the variable `BRAND_BASE_DIR`.
pub(super) fn overlay_folder(folder: &Path) -> PathBuf {
    folder.join("office")
}

/// What a new profile is filled with: autotexts, Basic libraries, galleries. A conversion needs none of it, and the engine
/// copies folders only, not links; so it is there, and empty.
const PRESETS: &str = "presets";

/// Makes, in `overlay`, the installation `office` out of links, with the missing layouts added.
///
/// # Errors
/// If the folder cannot be written, or the installation not be read.
pub(super) fn overlay(office: &Path, overlay: &Path) -> io::Result<()> {
    link_all(office, overlay)?;
    remove_link(&overlay.join(PRESETS))?;
    fs::create_dir(overlay.join(PRESETS))?;
    for (module, name, layout) in LAYOUTS {
        let (mut original, mut copy) = (office.to_owned(), overlay.to_owned());
        for part in MODULES.into_iter().chain([module, "ui"]) {
            original.push(part);
            copy.push(part);
            unfold(&original, &copy)?;
        }
        if !original.join(name).exists() {
            fs::write(copy.join(name), layout)?;
        }
    }
    Ok(())
}

/// Makes a folder of links out of a link to a folder.
fn unfold(original: &Path, copy: &Path) -> io::Result<()> {
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
        overlay(&office, &copy).unwrap();
        let read = |path: &str| fs::read_to_string(copy.join(path)).unwrap();
        assert_eq!(read("program/versionrc"), "7");
        assert_eq!(read("share/config/soffice.cfg/modules/scalc/ui/posbox.ui"), "theirs");
        assert!(read("share/config/soffice.cfg/modules/scalc/ui/inputbar.ui").contains("sc_input_window"));
    }
}
