//! The LibreOffice user profile of a worker: security settings that fetch no links and run no macros.

use std::path::Path;
use std::{fs, io};

/// The user's registry layer, which overrides the distribution's settings.
const REGISTRY: &str = "user/registrymodifications.xcu";

/// Registry path, property and value. The first three are security settings: linked content is not fetched, macros are
/// neither trusted nor run. Links are never updated (Writer and Calc number this setting differently). The proxy at a
/// closed port stops requests that get past all that. There is no user data, so no title or author gets into a result.
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

/// Writes the profile into the new `folder`; without settings unless `secure`.
///
/// # Errors
/// If the folder cannot be written.
pub(super) fn write_profile(folder: &Path, secure: bool) -> io::Result<()> {
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
