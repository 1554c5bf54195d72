//! One conversion by LibreOffice: open, prepare, save, verify, rename.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use pipeline::documents::{Format, Options};
use serde_json::json;
use tokio::time::Instant;

use super::kit::{Document, Kit, KitError, OpenError};
use super::protocol::{Done, Fault, Job, Reply};
use super::raster::Drawing;
use super::usage::Usage;
use super::{filter, sheet, verify};

/// No dialogs, no macros but signed ones from trusted places, of which there are none.
const LOAD_OPTIONS: &str = "Batch=1,MacroSecurityLevel=3";
/// Read and write plain text as UTF-8.
const TEXT_FILTER: &str = "UTF8,LF";
/// Commas, double quotes, UTF-8, cells as shown.
const CSV_FILTER: &str = "44,34,76,1,,0,false,true,false";
/// Pictures inside.
const HTML_FILTER: &str = "EmbedImages";
/// 1/100 mm in a twip, times 1000.
const HUNDREDTHS_PER_KILOTWIP: i64 = 1764;

/// Left to the engine for an index, each time.
const INDEX_PAUSE: Duration = Duration::from_millis(150);
/// Between two looks at the paper, and how often it is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const MOST_LOOKS: u32 = 250;
/// Looks between two commands.
const ASK_AGAIN: u32 = 25;

/// Why a conversion came to nothing.
type Rejected = (Fault, String);

fn unreadable(why: impl ToString) -> Rejected {
    (Fault::Unreadable, why.to_string())
}

/// Converts; whatever happens short of a crash is an answer.
pub(super) fn convert(kit: &mut Kit, job: &Job, usage: &Usage) -> Reply {
    let (began, cpu) = (Instant::now(), usage.cpu_ms());
    match made(kit, job, began) {
        Ok((files, pages, ms_load, ms_save)) => Reply::Done(Done {
            ms_load,
            ms_save,
            ms_cpu: usage.cpu_ms().saturating_sub(cpu),
            rss: usage.resident(),
            pages,
            files,
        }),
        Err((fault, why)) => Reply::Rejected { fault, why },
    }
}

/// Files, pages, and how long reading and writing took.
type Made = (Vec<String>, u32, u64, u64);

fn made(kit: &mut Kit, job: &Job, began: Instant) -> Result<Made, Rejected> {
    if job.from == Format::Pdf {
        // Nothing of it is the engine's.
        let (files, pages) = pictures(&job.folder.join("in.pdf"), job)?;
        return Ok((files, pages, 0, millis(began)));
    }
    let document = open(kit, job)?;
    let (ms_load, saving) = (millis(began), Instant::now());
    prepare(&document, job)?;
    let (files, pages) = if job.to == Format::Png {
        let pdf = job.folder.join("drawn.pdf");
        document
            .save(&pdf, Format::Pdf.extension(), &filter::of_pdf(&Options::default()))
            .map_err(|why| unwritten(&why, job))?;
        verify::file(&pdf, Format::Pdf, job.largest_output, u32::MAX).map_err(unreadable)?;
        pictures(&pdf, job)?
    } else {
        one_file(&document, job)?
    };
    Ok((files, pages, ms_load, millis(saving)))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn open<'kit>(kit: &'kit mut Kit, job: &Job) -> Result<Document<'kit>, Rejected> {
    let mut file = job.folder.join(format!("in.{}", job.from));
    let mut options = LOAD_OPTIONS.to_owned();
    if job.from == Format::Txt {
        options = format!("{TEXT_FILTER},{options}");
    }
    if job.from == Format::Csv {
        let sheet = sheet::from_csv(&fs::read(&file).map_err(unreadable)?).map_err(unreadable)?;
        file = job.folder.join("in.fods");
        fs::write(&file, sheet).map_err(unreadable)?;
    }
    kit.open(&file, &options, job.options.password.as_deref()).map_err(|error| match error {
        OpenError::PasswordRequired => (Fault::PasswordRequired, String::new()),
        OpenError::PasswordWrong => (Fault::PasswordWrong, String::new()),
        OpenError::Unreadable(why) => {
            log(&why);
            unreadable(format!("LibreOffice does not read it as {}", job.from))
        }
    })
}

fn prepare(document: &Document<'_>, job: &Job) -> Result<(), Rejected> {
    if job.options.landscape {
        turn_paper(document)?;
    }
    if job.options.update_indexes {
        // Twice, since the growth of an index moves the pages that it names.
        for _ in 0..2 {
            document.command(".uno:UpdateAllIndexes", None).map_err(unreadable)?;
            pause(INDEX_PAUSE);
        }
    }
    Ok(())
}

/// Swaps the sides of the page style of the first page, where it stands upright.
fn turn_paper(document: &Document<'_>) -> Result<(), Rejected> {
    let upright = |page: Option<(i64, i64)>| page.filter(|(width, height)| width < height);
    let Some((width, height)) = upright(document.first_page().map_err(unreadable)?) else { return Ok(()) };
    let hundredths = |twips: i64| (twips * HUNDREDTHS_PER_KILOTWIP / 1000).to_string();
    let size = json!({
        "AttributePageSize.Width": {"type": "long", "value": hundredths(height)},
        "AttributePageSize.Height": {"type": "long", "value": hundredths(width)},
    });
    for look in 0..MOST_LOOKS {
        // Now and then the engine loses a command while it is busy with the layout; the same one again changes nothing.
        if look % ASK_AGAIN == 0 {
            document.command(".uno:AttributePageSize", Some(&size.to_string())).map_err(unreadable)?;
        }
        if upright(document.first_page().map_err(unreadable)?).is_none() {
            return Ok(());
        }
        pause(LOOK_AGAIN);
    }
    Err(unreadable("the paper did not turn"))
}

#[expect(clippy::disallowed_methods, reason = "the engine's thread does what was asked, and does not say when it has")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Saves under another name first: a file that has its name is whole.
fn one_file(document: &Document<'_>, job: &Job) -> Result<(Vec<String>, u32), Rejected> {
    let filter = match job.to {
        Format::Pdf => filter::of_pdf(&job.options),
        Format::Txt => TEXT_FILTER.to_owned(),
        Format::Csv => CSV_FILTER.to_owned(),
        // Files beside it would be lost.
        Format::Html => HTML_FILTER.to_owned(),
        _ => String::new(),
    };
    let name = format!("out.{}", job.to);
    let unfinished = job.folder.join(format!("unfinished-{name}"));
    document.save(&unfinished, job.to.extension(), &filter).map_err(|why| unwritten(&why, job))?;
    let pages = verify::file(&unfinished, job.to, job.largest_output, job.most_pages).map_err(unreadable)?;
    fs::rename(&unfinished, job.folder.join(&name)).map_err(unreadable)?;
    Ok((vec![name], pages))
}

/// What the engine says is full of paths and lines of its source, which are nobody's business outside. Whether anybody reads
/// the log is not this worker's.
fn log(why: &str) {
    drop(writeln!(std::io::stderr(), "{why}"));
}

fn unwritten(why: &str, job: &Job) -> Rejected {
    log(why);
    match &job.options.pages {
        Some(pages) => unreadable(format!("LibreOffice wrote nothing: has it the pages {pages:?}?")),
        None => unreadable(format!("LibreOffice did not write it as {}", job.to)),
    }
}

/// A picture of each page of a PDF that is asked for.
fn pictures(pdf: &Path, job: &Job) -> Result<(Vec<String>, u32), Rejected> {
    let wanted = |number| job.options.takes_page(number);
    let drawing = Drawing { wanted: &wanted, width: job.options.png_width, most: job.most_pages };
    let mut names = Vec::new();
    let mut left = job.largest_output;
    let keep = |number, picture: Vec<u8>| {
        left = left.checked_sub(picture.len() as u64).ok_or("the pictures are more bytes than are allowed")?;
        let name = format!("page-{number}.png");
        fs::write(job.folder.join(&name), picture).map_err(|error| error.to_string())?;
        names.push(name);
        Ok(())
    };
    let pages = drawing.draw(fs::read(pdf).map_err(unreadable)?, keep).map_err(unreadable)?;
    Ok((names, pages))
}

/// Loads the engine and converts the sample once.
///
/// # Errors
/// What is wrong with the installation, and what to do.
pub(super) fn start(office: &Path, folder: &Path, usage: &Usage) -> Result<Kit, String> {
    let mut kit = Kit::start(office, &folder.join("profile")).map_err(|error: KitError| error.to_string())?;
    let warm = folder.join("jobs/warm");
    fs::create_dir_all(&warm).map_err(|error| error.to_string())?;
    fs::write(warm.join("in.docx"), super::sample::docx()).map_err(|error| error.to_string())?;
    let job = Job {
        folder: warm.clone(),
        from: Format::Docx,
        to: Format::Pdf,
        options: Options::default(),
        attempt: 1,
        largest_output: 1 << 20,
        most_pages: 1,
    };
    let reply = convert(&mut kit, &job, usage);
    fs::remove_dir_all(&warm).map_err(|error| error.to_string())?;
    match reply {
        Reply::Done(_) => Ok(kit),
        Reply::Rejected { why, .. } => Err(format!("LibreOffice cannot convert a sample: {why}")),
        other => Err(format!("LibreOffice cannot convert a sample: {other:?}")),
    }
}
