//! LibreOfficeKit: the one file of the product with `unsafe` in it.
//!
//! The engine is a shared library with a C interface: a structure whose first word points at a table of functions, which
//! starts with its own size (`LibreOfficeKit/LibreOfficeKit.h` of the LibreOffice SDK). A function is called only if its
//! slot lies within that size; those of the interface that may change with any release (from [`slot::PAGE_RECTANGLES`] on) only in
//! releases that were looked at. Everything runs on one thread, one document at a time; the engine itself is never
//! destroyed, since it cannot be made twice in one process, which therefore leaves by [`leave`].
//!
//! Three system calls without a safe wrapper are here too: [`unshare`], [`close_inherited`] and [`leave`].
#![allow(unsafe_code, reason = "a C interface; every block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libloading::Library;
use rustix::thread::UnshareFlags;

/// The library of a merged build, which is what distributions ship.
const LIBRARY: &str = "program/libmergedlo.so";

/// Releases whose unstable functions were looked at: product version, without the patch level.
const KNOWN_RELEASES: [&str; 1] = ["7.4"];

/// Positions in the tables, counted from after the size.
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
    /// The first of the unstable ones.
    pub(super) const PAGE_RECTANGLES: usize = 4;
    pub(super) const POST_UNO_COMMAND: usize = 16;
}

/// Ask for passwords by callback, both of opening and of changing.
const PASSWORD_FEATURES: u64 = 0b11;
/// The callback's types for those two.
const PASSWORD_WANTED: [c_int; 2] = [20, 21];

type Table = *const usize;

/// What every object of the interface starts with.
#[repr(C)]
struct Object {
    table: Table,
}

type Hook = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut Object;
type Callback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void);

/// Why the engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// The library is missing or no such library.
    #[error("{library} cannot be loaded ({why}): install libreoffice-writer-nogui, -calc-nogui and -impress-nogui")]
    Library {
        /// Which file.
        library: String,
        /// What the loader said.
        why: String,
    },
    /// It would not start.
    #[error("LibreOffice did not start")]
    Start,
    /// A function is missing.
    #[error("LibreOffice {version} lacks function {slot} of its interface")]
    Function {
        /// As the engine says.
        version: String,
        /// Position in the table.
        slot: usize,
    },
    /// The function is there, but may be another one.
    #[error("LibreOffice {0} was not tried for this; known is {known}", known = KNOWN_RELEASES.join(", "))]
    UnknownRelease(String),
}

/// Why a document was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Encrypted, and no password is known.
    PasswordRequired,
    /// Encrypted, and the password is another.
    PasswordWrong,
    /// Anything else, in the engine's words.
    Unreadable(String),
}

/// The engine. One per process.
pub struct Kit {
    object: *mut Object,
    version: String,
    release: String,
    asked: &'static Asked,
}

/// What the password callback needs; lives as long as the process, as the engine does.
struct Asked {
    object: *mut Object,
    state: Mutex<Asking>,
}

#[derive(Default)]
struct Asking {
    url: CString,
    password: Option<CString>,
    times: u32,
}

impl Kit {
    /// Loads and starts the engine of `office` (the folder above `program`), with its profile in `profile`.
    ///
    /// # Errors
    /// If there is no such library, or it does not start.
    pub fn start(office: &Path, profile: &Path) -> Result<Self, KitError> {
        let path = office.join(LIBRARY);
        let failed =
            |why: libloading::Error| KitError::Library { library: path.display().to_string(), why: why.to_string() };
        // SAFETY: runs the initialisers of the installed LibreOffice, in a process made for it, once.
        let library = unsafe { Library::new(&path) }.map_err(failed)?;
        // SAFETY: the type is that of the function of this name in LibreOfficeKitInit.h.
        let hook = *unsafe { library.get::<Hook>(b"libreofficekit_hook_2\0") }.map_err(failed)?;
        // The library holds threads and exit handlers: it stays until the process ends.
        std::mem::forget(library);
        let program = text(&office.join("program").display().to_string());
        // SAFETY: both strings live through the call.
        let object = unsafe { hook(program.as_ptr(), text(&file_url(profile)).as_ptr()) };
        if object.is_null() {
            return Err(KitError::Start);
        }
        let asked: &'static Asked = Box::leak(Box::new(Asked { object, state: Mutex::default() }));
        let mut kit = Self { object, version: String::new(), release: String::new(), asked };
        kit.read_version()?;
        kit.answer_passwords()?;
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

    fn answer_passwords(&self) -> Result<(), KitError> {
        type Register = unsafe extern "C" fn(*mut Object, Option<Callback>, *mut c_void);
        type Features = unsafe extern "C" fn(*mut Object, u64);
        let data = std::ptr::from_ref(self.asked).cast_mut().cast();
        // SAFETY: the types are those of the two functions; `asked` lives as long as the process.
        unsafe {
            self.function::<Register>(slot::REGISTER_CALLBACK)?(self.object, Some(answer), data);
            self.function::<Features>(slot::SET_OPTIONAL_FEATURES)?(self.object, PASSWORD_FEATURES);
        }
        Ok(())
    }

    /// Opens `file` with the engine's load `options`; `password` is for where it is encrypted.
    ///
    /// # Errors
    /// If the engine does not read it.
    pub fn open(&mut self, file: &Path, options: &str, password: Option<&str>) -> Result<Document<'_>, OpenError> {
        type Load = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char) -> *mut Object;
        let url = text(&file_url(file));
        *lock(&self.asked.state) = Asking { url: url.clone(), password: password.map(text), times: 0 };
        let unreadable = |error: KitError| OpenError::Unreadable(error.to_string());
        let load = self.function::<Load>(slot::LOAD_WITH_OPTIONS).map_err(unreadable)?;
        // SAFETY: the type is that of documentLoadWithOptions; both strings live through the call.
        let object = unsafe { load(self.object, url.as_ptr(), text(options).as_ptr()) };
        let asking = std::mem::take(&mut *lock(&self.asked.state));
        if object.is_null() {
            let why = self.error();
            return Err(match (asking.times, asking.password) {
                (0, _) => OpenError::Unreadable(why),
                (_, None) => OpenError::PasswordRequired,
                (_, Some(_)) => OpenError::PasswordWrong,
            });
        }
        Ok(Document { kit: self, object, only_while_open: PhantomData })
    }

    /// What the engine said last, which is nothing where all went well.
    fn error(&self) -> String {
        type Get = unsafe extern "C" fn(*mut Object) -> *mut c_char;
        let Ok(get) = self.function::<Get>(slot::GET_ERROR) else { return String::new() };
        // SAFETY: the type is that of getError; the text is ours to free.
        unsafe { self.owned(get(self.object)) }
    }

    /// Copies a text of the engine and frees it.
    ///
    /// # Safety
    /// `raw` is null or a text that the engine gave away.
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
        // SAFETY: the object is the engine's, and every caller names the type of the header for this slot.
        unsafe { function(self.object, slot) }.ok_or_else(|| KitError::Function { version: self.version.clone(), slot })
    }
}

/// An open document; closing it is dropping it.
pub struct Document<'kit> {
    kit: &'kit Kit,
    object: *mut Object,
    only_while_open: PhantomData<*mut ()>,
}

impl Document<'_> {
    /// Writes the document as the format of this extension.
    ///
    /// # Errors
    /// What the engine says.
    pub fn save(&self, file: &Path, extension: &str, options: &str) -> Result<(), String> {
        type Save = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char, *const c_char) -> c_int;
        let (url, format, options) = (text(&file_url(file)), text(extension), text(options));
        let save = self.stable::<Save>(slot::SAVE_AS).map_err(|error| error.to_string())?;
        // SAFETY: the type is that of saveAs; the strings live through the call.
        let saved = unsafe { save(self.object, url.as_ptr(), format.as_ptr(), options.as_ptr()) };
        if saved == 0 { Err(self.kit.error()) } else { Ok(()) }
    }

    /// Asks for a command of the user interface, with arguments in the engine's JSON. The engine's own thread carries it out
    /// a moment later. (It can tell when, by a callback that now and then locks both threads for good; so it is not asked.)
    ///
    /// # Errors
    /// If this release was not tried for it.
    pub fn command(&self, name: &str, arguments: Option<&str>) -> Result<(), KitError> {
        type Post = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char, bool);
        let (name, arguments) = (text(name), arguments.map(text));
        let post = self.unstable::<Post>(slot::POST_UNO_COMMAND)?;
        let arguments = arguments.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the type is that of postUnoCommand in the releases looked at; the strings live through the call.
        unsafe { post(self.object, name.as_ptr(), arguments, false) };
        Ok(())
    }

    /// Width and height of the first page of a text document, in twips (1/1440 inch).
    ///
    /// # Errors
    /// If this release was not tried for it.
    pub fn first_page(&self) -> Result<Option<(c_long, c_long)>, KitError> {
        type Rectangles = unsafe extern "C" fn(*mut Object) -> *mut c_char;
        let rectangles = self.unstable::<Rectangles>(slot::PAGE_RECTANGLES)?;
        // SAFETY: the type is that of getPartPageRectangles in the releases looked at; the text is ours to free.
        let text = unsafe { self.kit.owned(rectangles(self.object)) };
        let first: Vec<c_long> =
            text.split(';').next().unwrap_or_default().split(',').filter_map(|n| n.trim().parse().ok()).collect();
        Ok(if let [_, _, width, height] = first[..] { Some((width, height)) } else { None })
    }

    fn stable<F: Copy>(&self, slot: usize) -> Result<F, KitError> {
        let version = &self.kit.version;
        // SAFETY: the object is the engine's, and every caller names the type of the header for this slot.
        unsafe { function(self.object, slot) }.ok_or_else(|| KitError::Function { version: version.clone(), slot })
    }

    fn unstable<F: Copy>(&self, slot: usize) -> Result<F, KitError> {
        if !KNOWN_RELEASES.contains(&self.kit.release.as_str()) {
            return Err(KitError::UnknownRelease(self.kit.version.clone()));
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
/// `object` is a living object of the engine and `F` the pointer type of the function at `slot`.
unsafe fn function<F: Copy>(object: *mut Object, slot: usize) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: a living object starts with the pointer to its table, and a table with its size in bytes.
    let (table, size) = unsafe { ((*object).table, *(*object).table) };
    if (slot + 2) * size_of::<usize>() > size {
        return None;
    }
    // SAFETY: within the table by the check above.
    let address = unsafe { *table.add(slot + 1) };
    // SAFETY: not null, and of this type, as the caller promises.
    (address != 0).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Called by the engine when a document wants a password. The second time means that the first was wrong: without an
/// end to it, the engine would ask for ever.
unsafe extern "C" fn answer(kind: c_int, _payload: *const c_char, data: *mut c_void) {
    type SetPassword = unsafe extern "C" fn(*mut Object, *const c_char, *const c_char);
    if !PASSWORD_WANTED.contains(&kind) || data.is_null() {
        return;
    }
    // SAFETY: registered with this pointer, which lives as long as the process.
    let asked = unsafe { &*data.cast::<Asked>() };
    let (url, password) = {
        let mut state = lock(&asked.state);
        state.times += 1;
        (state.url.clone(), state.password.clone().filter(|_| state.times == 1))
    };
    // SAFETY: the object is the engine's, the type that of setDocumentPassword.
    let Some(set) = (unsafe { function::<SetPassword>(asked.object, slot::SET_DOCUMENT_PASSWORD) }) else { return };
    let password = password.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: both strings live through the call; null means that there is none.
    unsafe { set(asked.object, url.as_ptr(), password) };
}

fn lock(state: &Mutex<Asking>) -> std::sync::MutexGuard<'_, Asking> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text for C; what follows a NUL is cut off, since C would not see it.
fn text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// The URL of an absolute path, with everything escaped that is not plain.
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

/// Moves this process, which has one thread, into namespaces of its own.
///
/// # Errors
/// If the kernel does not permit it.
pub fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the one danger named for this call is sharing files with other threads, which these flags do not touch.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Closes every file that the process was started with, but for standard input, output and error.
pub fn close_inherited() {
    // SAFETY: called first of all, before anything in this process has opened a file.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as c_long, c_long::from(u32::MAX), 0 as c_long) };
}

/// Ends the process without running exit handlers, which the engine does not survive.
pub fn leave(code: u8) -> ! {
    // SAFETY: ends the process; nothing of it is used again.
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
    fn a_table_is_not_read_beyond_its_size() {
        let table = [3 * size_of::<usize>(), 11, 12, 13];
        let mut object = Object { table: table.as_ptr() };
        // SAFETY: the table is as long as it says; the numbers are read as what they are.
        let mut read = |slot| unsafe { function::<usize>(&raw mut object, slot) };
        assert_eq!([read(0), read(1), read(2)], [Some(11), Some(12), None]);
    }
}
