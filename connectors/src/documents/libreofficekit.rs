//! LibreOfficeKit binding: the C interface of LibreOffice. The only file of the program with `unsafe` code.
//!
//! LibreOffice is a shared library. Each object is a structure whose first word points to a table of functions, which
//! starts with its own size (`LibreOfficeKit/LibreOfficeKit.h` of the LibreOffice SDK). A function is called only if
//! its slot is within that size. Functions that may change with any release (from [`slot::PAGE_RECTANGLES`] on) are
//! called only in releases that were checked. Everything runs on one thread, one document at a time. LibreOffice cannot
//! be started twice in one process, so it is never destroyed, and the process ends by [`exit_now`].
//!
//! Three system calls without a safe wrapper are here too: [`unshare`], [`close_inherited`] and [`exit_now`].
#![allow(unsafe_code, reason = "a C interface; every block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libloading::Library;
use rustix::thread::UnshareFlags;

/// The library of a merged build, as distributions ship it.
const LIBRARY: &str = "program/libmergedlo.so";

/// Releases whose unstable functions were checked: product version without the patch level.
const CHECKED_RELEASES: [&str; 1] = ["7.4"];

/// Positions in the function tables, counted from after the size.
mod slot {
    pub(super) const GET_ERROR: usize = 2;
    pub(super) const LOAD_WITH_OPTIONS: usize = 3;
    pub(super) const FREE_ERROR: usize = 4;
    pub(super) const REGISTER_CALLBACK: usize = 5;
    pub(super) const SET_OPTIONAL_FEATURES: usize = 7;
    pub(super) const SET_DOCUMENT_PASSWORD: usize = 8;
    pub(super) const GET_VERSION_INFO: usize = 9;

    pub(super) const DESTROY: usize = 0;
    pub(super) const SAVE_AS: usize = 1;
    /// The first unstable function.
    pub(super) const PAGE_RECTANGLES: usize = 4;
    pub(super) const POST_UNO_COMMAND: usize = 16;
}

/// Request passwords by callback, both for opening and for editing.
const PASSWORD_FEATURES: u64 = 0b11;
/// The callback types of these two requests.
const PASSWORD_REQUESTS: [c_int; 2] = [20, 21];

type Table = *const usize;

/// The start of every object of the interface.
#[repr(C)]
struct Object {
    table: Table,
}

type Hook = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut Object;
type Callback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void);

/// Why LibreOffice cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// The library is missing or another library.
    #[error("{library} cannot be loaded ({why}): install libreoffice-writer-nogui, -calc-nogui and -impress-nogui")]
    Library {
        /// Which file.
        library: String,
        /// The loader's error.
        why: String,
    },
    /// The library did not start LibreOffice.
    #[error("LibreOffice did not start")]
    Start,
    /// A function is missing in this release.
    #[error("LibreOffice {version} lacks function {slot} of LibreOfficeKit")]
    Function {
        /// LibreOffice's version.
        version: String,
        /// Position in the table.
        slot: usize,
    },
    /// The function exists, but its signature may differ in this release.
    #[error("this function was not checked with LibreOffice {0}; checked: {all}", all = CHECKED_RELEASES.join(", "))]
    UncheckedRelease(String),
}

/// Why a document was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Encrypted, and no password was given.
    PasswordRequired,
    /// Encrypted, and the password is wrong.
    PasswordWrong,
    /// Anything else, with LibreOffice's message.
    Unreadable(String),
}

/// LibreOffice, loaded and started. One per process.
pub struct LibreOfficeKit {
    object: *mut Object,
    version: String,
    release: String,
    passwords: &'static PasswordCallback,
}

/// Data of the password callback; lives as long as the process, as LibreOffice does.
struct PasswordCallback {
    object: *mut Object,
    attempt: Mutex<PasswordAttempt>,
}

/// The document being opened, and how often LibreOffice requested its password.
#[derive(Default)]
struct PasswordAttempt {
    url: CString,
    password: Option<CString>,
    requests: u32,
}

impl LibreOfficeKit {
    /// Loads and starts the LibreOffice installed in `office` (the folder above `program`), with its profile in
    /// `profile`.
    ///
    /// # Errors
    /// If there is no such library, or LibreOffice does not start.
    pub fn start(office: &Path, profile: &Path) -> Result<Self, KitError> {
        let path = office.join(LIBRARY);
        let failed =
            |why: libloading::Error| KitError::Library { library: path.display().to_string(), why: why.to_string() };
        // SAFETY: runs the initialisers of the installed LibreOffice, in a process made for it, once.
        let library = unsafe { Library::new(&path) }.map_err(failed)?;
        // SAFETY: the type is that of the function of this name in LibreOfficeKitInit.h.
        let hook = *unsafe { library.get::<Hook>(b"libreofficekit_hook_2\0") }.map_err(failed)?;
        // The library has threads and exit handlers, so it stays loaded until the process ends.
        std::mem::forget(library);
        let program = text(&office.join("program").display().to_string());
        // SAFETY: both strings outlive the call.
        let object = unsafe { hook(program.as_ptr(), text(&file_url(profile)).as_ptr()) };
        if object.is_null() {
            return Err(KitError::Start);
        }
        let passwords: &'static PasswordCallback =
            Box::leak(Box::new(PasswordCallback { object, attempt: Mutex::default() }));
        let mut kit = Self { object, version: String::new(), release: String::new(), passwords };
        kit.read_version()?;
        kit.register_password_callback()?;
        Ok(kit)
    }

    /// For example `7.4.7.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn read_version(&mut self) -> Result<(), KitError> {
        type Get = unsafe extern "C" fn(*mut Object) -> *mut c_char;
        // SAFETY: the type is that of getVersionInfo; the text is ours to free.
        let json = unsafe { self.owned(self.function::<Get>(slot::GET_VERSION_INFO)?(self.object)) };
        let info: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        let part = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
        self.release = part("ProductVersion");
        self.version = self.release.clone() + &part("ProductExtension");
        Ok(())
    }

    fn register_password_callback(&self) -> Result<(), KitError> {
        type Register = unsafe extern "C" fn(*mut Object, Option<Callback>, *mut c_void);
        type Features = unsafe extern "C" fn(*mut Object, u64);
        let data = std::ptr::from_ref(self.passwords).cast_mut().cast();
        // SAFETY: the types are those of the two functions; `passwords` lives as long as the process.
        unsafe {
            self.function::<Register>(slot::REGISTER_CALLBACK)?(self.object, Some(provide_password), data);
            self.function::<Features>(slot::SET_OPTIONAL_FEATURES)?(self.object, PASSWORD_FEATURES);
        }
        Ok(())
    }

    /// Opens `file` with LibreOffice's load `options`; `password` is used if the file is encrypted.
    ///
    /// # Errors
    /// If LibreOffice cannot read it.
    pub fn open(&mut self, file: &Path, options: &str, password: Option<&str>) -> Result<Document<'_>, OpenError> {
        type Load = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char) -> *mut Object;
        let url = text(&file_url(file));
        *lock(&self.passwords.attempt) =
            PasswordAttempt { url: url.clone(), password: password.map(text), requests: 0 };
        let unreadable = |error: KitError| OpenError::Unreadable(error.to_string());
        let load = self.function::<Load>(slot::LOAD_WITH_OPTIONS).map_err(unreadable)?;
        // SAFETY: the type is that of documentLoadWithOptions; both strings outlive the call.
        let object = unsafe { load(self.object, url.as_ptr(), text(options).as_ptr()) };
        let attempt = std::mem::take(&mut *lock(&self.passwords.attempt));
        if object.is_null() {
            let why = self.error();
            return Err(match (attempt.requests, attempt.password) {
                (0, _) => OpenError::Unreadable(why),
                (_, None) => OpenError::PasswordRequired,
                (_, Some(_)) => OpenError::PasswordWrong,
            });
        }
        Ok(Document { kit: self, object, not_send: PhantomData })
    }

    /// LibreOffice's last error message, empty if there was none.
    fn error(&self) -> String {
        type Get = unsafe extern "C" fn(*mut Object) -> *mut c_char;
        let Ok(get) = self.function::<Get>(slot::GET_ERROR) else { return String::new() };
        // SAFETY: the type is that of getError; the text is ours to free.
        unsafe { self.owned(get(self.object)) }
    }

    /// Copies a string that LibreOffice allocated and frees it.
    ///
    /// # Safety
    /// `raw` is null or a string that LibreOffice handed over.
    unsafe fn owned(&self, raw: *mut c_char) -> String {
        type Free = unsafe extern "C" fn(*mut c_char);
        if raw.is_null() {
            return String::new();
        }
        // SAFETY: not null, and terminated, as the caller promises.
        let copy = unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned();
        if let Ok(free) = self.function::<Free>(slot::FREE_ERROR) {
            // SAFETY: freed once, by the function made for it.
            unsafe { free(raw) };
        }
        copy
    }

    fn function<F: Copy>(&self, slot: usize) -> Result<F, KitError> {
        // SAFETY: the object is LibreOffice's, and every caller names the type that the header has for this slot.
        unsafe { function(self.object, slot) }.ok_or_else(|| KitError::Function { version: self.version.clone(), slot })
    }
}

/// An open document; dropping it closes it.
pub struct Document<'kit> {
    kit: &'kit LibreOfficeKit,
    object: *mut Object,
    not_send: PhantomData<*mut ()>,
}

impl Document<'_> {
    /// Writes the document in the format of this extension.
    ///
    /// # Errors
    /// LibreOffice's message.
    pub fn save(&self, file: &Path, extension: &str, options: &str) -> Result<(), String> {
        type Save = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char, *const c_char) -> c_int;
        let (url, format, options) = (text(&file_url(file)), text(extension), text(options));
        let save = self.stable::<Save>(slot::SAVE_AS).map_err(|error| error.to_string())?;
        // SAFETY: the type is that of saveAs; the strings outlive the call.
        let saved = unsafe { save(self.object, url.as_ptr(), format.as_ptr(), options.as_ptr()) };
        if saved == 0 { Err(self.kit.error()) } else { Ok(()) }
    }

    /// Posts a command of the user interface, with arguments in LibreOffice's JSON. LibreOffice's own thread executes
    /// it a moment later. (A callback could report when, but it sometimes deadlocks both threads, so it is not used.)
    ///
    /// # Errors
    /// If the function was not checked with this release.
    pub fn command(&self, name: &str, arguments: Option<&str>) -> Result<(), KitError> {
        type Post = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char, bool);
        let (name, arguments) = (text(name), arguments.map(text));
        let post = self.unstable::<Post>(slot::POST_UNO_COMMAND)?;
        let arguments = arguments.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the type is that of postUnoCommand in the checked releases; the strings outlive the call.
        unsafe { post(self.object, name.as_ptr(), arguments, false) };
        Ok(())
    }

    /// Width and height of the first page of a text document, in twips (1/1440 inch).
    ///
    /// # Errors
    /// If the function was not checked with this release.
    pub fn first_page(&self) -> Result<Option<(c_long, c_long)>, KitError> {
        type Rectangles = unsafe extern "C" fn(*mut Object) -> *mut c_char;
        let rectangles = self.unstable::<Rectangles>(slot::PAGE_RECTANGLES)?;
        // SAFETY: the type is that of getPartPageRectangles in the checked releases; the text is ours to free.
        let text = unsafe { self.kit.owned(rectangles(self.object)) };
        let first: Vec<c_long> =
            text.split(';').next().unwrap_or_default().split(',').filter_map(|n| n.trim().parse().ok()).collect();
        Ok(if let [_, _, width, height] = first[..] { Some((width, height)) } else { None })
    }

    fn stable<F: Copy>(&self, slot: usize) -> Result<F, KitError> {
        let version = &self.kit.version;
        // SAFETY: the object is LibreOffice's, and every caller names the type that the header has for this slot.
        unsafe { function(self.object, slot) }.ok_or_else(|| KitError::Function { version: version.clone(), slot })
    }

    fn unstable<F: Copy>(&self, slot: usize) -> Result<F, KitError> {
        if !CHECKED_RELEASES.contains(&self.kit.release.as_str()) {
            return Err(KitError::UncheckedRelease(self.kit.version.clone()));
        }
        self.stable(slot)
    }
}

impl Drop for Document<'_> {
    fn drop(&mut self) {
        type Destroy = unsafe extern "C" fn(*mut Object);
        if let Ok(destroy) = self.stable::<Destroy>(slot::DESTROY) {
            // SAFETY: the type is that of destroy; the object is not used again.
            unsafe { destroy(self.object) };
        }
    }
}

/// The function at `slot` of the object's table, if the table reaches that far.
///
/// # Safety
/// `object` is a live object of LibreOffice and `F` the pointer type of the function at `slot`.
unsafe fn function<F: Copy>(object: *mut Object, slot: usize) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: a live object starts with the pointer to its table, and a table with its size in bytes.
    let (table, size) = unsafe { ((*object).table, *(*object).table) };
    if (slot + 2) * size_of::<usize>() > size {
        return None;
    }
    // SAFETY: within the table by the check above.
    let address = unsafe { *table.add(slot + 1) };
    // SAFETY: not null, and of this type, as the caller promises.
    (address != 0).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Called by LibreOffice when a document needs a password. A second request means that the first password was wrong, so
/// it is answered with none: otherwise LibreOffice would repeat the request forever.
unsafe extern "C" fn provide_password(kind: c_int, _payload: *const c_char, data: *mut c_void) {
    type SetPassword = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char);
    if !PASSWORD_REQUESTS.contains(&kind) || data.is_null() {
        return;
    }
    // SAFETY: registered with this pointer, which lives as long as the process.
    let callback = unsafe { &*data.cast::<PasswordCallback>() };
    let (url, password) = {
        let mut attempt = lock(&callback.attempt);
        attempt.requests += 1;
        (attempt.url.clone(), attempt.password.clone().filter(|_| attempt.requests == 1))
    };
    // SAFETY: the object is LibreOffice's, the type that of setDocumentPassword.
    let Some(set) = (unsafe { function::<SetPassword>(callback.object, slot::SET_DOCUMENT_PASSWORD) }) else { return };
    let password = password.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: both strings outlive the call; null means that there is none.
    unsafe { set(callback.object, url.as_ptr(), password) };
}

fn lock(attempt: &Mutex<PasswordAttempt>) -> std::sync::MutexGuard<'_, PasswordAttempt> {
    attempt.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A C string; ends at the first NUL, as C would read it.
fn text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// The URL of an absolute path, percent-encoded.
fn file_url(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(*byte)),
            other => drop(write!(url, "%{other:02X}")),
        }
    }
    url
}

/// Moves this single-threaded process into new namespaces.
///
/// # Errors
/// If the kernel does not permit it.
pub fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the documented danger of this call is a file table no longer shared with other threads; these flags keep
    // it.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Closes every inherited file except standard input, output and error.
pub fn close_inherited() {
    // SAFETY: called first, before anything in this process has opened a file.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as c_long, c_long::from(u32::MAX), 0 as c_long) };
}

/// Ends the process without running exit handlers: LibreOffice crashes in them.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_url() {
        assert_eq!(file_url(Path::new("/a b/ü.docx")), "file:///a%20b/%C3%BC.docx");
    }

    #[test]
    fn a_function_table_is_not_read_beyond_its_size() {
        let table = [3 * size_of::<usize>(), 11, 12, 13];
        let mut object = Object { table: table.as_ptr() };
        // SAFETY: the table has the size it declares; its numbers are read as numbers.
        let mut read = |slot| unsafe { function::<usize>(&raw mut object, slot) };
        assert_eq!([read(0), read(1), read(2)], [Some(11), Some(12), None]);
    }
}
