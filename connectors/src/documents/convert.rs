//! Converts one document with LibreOffice: open, prepare, save, verify, rename.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use pipeline::documents::{Format, Options};
use serde_json::json;
use tokio::time::Instant;

use super::csv_to_ods::csv_to_ods;
use super::export_filter::pdf_filter;
use super::libreofficekit::{Document, KitError, LibreOfficeKit, OpenError};
use super::pdf_to_png::PageRenderer;
use super::process_usage::ProcessUsage;
use super::protocol::{ConvertJob, DocumentFault, JobResult, Reply};
use super::verify_output::verify_output;
use super::warmup_document;

/// No dialogs; only signed macros from trusted locations, and there are no such locations.
const LOAD_OPTIONS: &str = "Batch=1,MacroSecurityLevel=3";
/// Reads and writes plain text as UTF-8.
const TEXT_FILTER: &str = "UTF8,LF";
/// Commas, double quotes, UTF-8, cells as shown.
const CSV_FILTER: &str = "44,34,76,1,,0,false,true,false";
/// Images are embedded, since files beside the result would be lost.
const HTML_FILTER: &str = "EmbedImages";
/// Hundredths of a millimetre in 1000 twips.
const HUNDREDTHS_PER_KILOTWIP: i64 = 1764;

/// Time for LibreOffice to update the indexes, each time.
const INDEX_PAUSE: Duration = Duration::from_millis(150);
/// Polling interval for the page orientation.
const ORIENTATION_POLL: Duration = Duration::from_millis(20);
const MAX_ORIENTATION_POLLS: u32 = 250;
/// Polls between two commands.
const POLLS_PER_COMMAND: u32 = 25;

/// Why a document was not converted: the fault, and the message for the requester.
type Rejection = (DocumentFault, String);

fn unreadable(why: impl ToString) -> Rejection {
    (DocumentFault::Unreadable, why.to_string())
}

/// Converts a document; every failure short of a crash is a reply.
pub(super) fn convert(kit: &mut LibreOfficeKit, job: &ConvertJob, usage: &ProcessUsage) -> Reply {
    let (began, cpu) = (Instant::now(), usage.cpu_ms());
    match try_convert(kit, job, began) {
        Ok((files, pages, ms_load, ms_save)) => Reply::Done(JobResult {
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

/// Names of the files, pages, and milliseconds of reading and writing.
type Output = (Vec<String>, u32, u64, u64);

fn try_convert(kit: &mut LibreOfficeKit, job: &ConvertJob, began: Instant) -> Result<Output, Rejection> {
    if job.from == Format::Pdf {
        // LibreOffice is not needed.
        let (files, pages) = images(&job.folder.join("in.pdf"), job)?;
        return Ok((files, pages, 0, millis(began)));
    }
    let document = open(kit, job)?;
    let (ms_load, saving) = (millis(began), Instant::now());
    prepare(&document, job)?;
    let (files, pages) = if job.to == Format::Png {
        let pdf = job.folder.join("rendered.pdf");
        document
            .save(&pdf, Format::Pdf.extension(), &pdf_filter(&Options::default()))
            .map_err(|why| unwritten(&why, job))?;
        verify_output(&pdf, Format::Pdf, job.largest_output, u32::MAX).map_err(unreadable)?;
        images(&pdf, job)?
    } else {
        one_file(&document, job)?
    };
    Ok((files, pages, ms_load, millis(saving)))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn open<'kit>(kit: &'kit mut LibreOfficeKit, job: &ConvertJob) -> Result<Document<'kit>, Rejection> {
    let mut file = job.folder.join(format!("in.{}", job.from));
    let mut options = LOAD_OPTIONS.to_owned();
    if job.from == Format::Txt {
        options = format!("{TEXT_FILTER},{options}");
    }
    if job.from == Format::Csv {
        let sheet = csv_to_ods(&fs::read(&file).map_err(unreadable)?).map_err(unreadable)?;
        file = job.folder.join("in.fods");
        fs::write(&file, sheet).map_err(unreadable)?;
    }
    kit.open(&file, &options, job.options.password.as_deref()).map_err(|error| match error {
        OpenError::PasswordRequired => (DocumentFault::PasswordRequired, String::new()),
        OpenError::PasswordWrong => (DocumentFault::PasswordWrong, String::new()),
        OpenError::Unreadable(why) => {
            log(&why);
            unreadable(format!("LibreOffice cannot read it as {}", job.from))
        }
    })
}

fn prepare(document: &Document<'_>, job: &ConvertJob) -> Result<(), Rejection> {
    if job.options.landscape {
        set_landscape(document)?;
    }
    if job.options.update_indexes {
        // Twice, since a longer index moves the pages that it lists.
        for _ in 0..2 {
            document.command(".uno:UpdateAllIndexes", None).map_err(unreadable)?;
            pause(INDEX_PAUSE);
        }
    }
    Ok(())
}

/// Swaps width and height of the first page's style if it is upright.
fn set_landscape(document: &Document<'_>) -> Result<(), Rejection> {
    let upright = |page: Option<(i64, i64)>| page.filter(|(width, height)| width < height);
    let Some((width, height)) = upright(document.first_page().map_err(unreadable)?) else { return Ok(()) };
    let hundredths = |twips: i64| (twips * HUNDREDTHS_PER_KILOTWIP / 1000).to_string();
    let size = json!({
        "AttributePageSize.Width": {"type": "long", "value": hundredths(height)},
        "AttributePageSize.Height": {"type": "long", "value": hundredths(width)},
    });
    for poll in 0..MAX_ORIENTATION_POLLS {
        // LibreOffice sometimes loses a command while it computes the layout; repeating it does no harm.
        if poll % POLLS_PER_COMMAND == 0 {
            document.command(".uno:AttributePageSize", Some(&size.to_string())).map_err(unreadable)?;
        }
        if upright(document.first_page().map_err(unreadable)?).is_none() {
            return Ok(());
        }
        pause(ORIENTATION_POLL);
    }
    Err(unreadable("LibreOffice did not change the page orientation"))
}

#[expect(clippy::disallowed_methods, reason = "LibreOffice's thread does not report when it has executed a command")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Saves under another name first, so that a file with the final name is complete.
fn one_file(document: &Document<'_>, job: &ConvertJob) -> Result<(Vec<String>, u32), Rejection> {
    let filter = match job.to {
        Format::Pdf => pdf_filter(&job.options),
        Format::Txt => TEXT_FILTER.to_owned(),
        Format::Csv => CSV_FILTER.to_owned(),
        Format::Html => HTML_FILTER.to_owned(),
        _ => String::new(),
    };
    let name = format!("out.{}", job.to);
    let unfinished = job.folder.join(format!("unfinished-{name}"));
    document.save(&unfinished, job.to.extension(), &filter).map_err(|why| unwritten(&why, job))?;
    let pages = verify_output(&unfinished, job.to, job.largest_output, job.most_pages).map_err(unreadable)?;
    fs::rename(&unfinished, job.folder.join(&name)).map_err(unreadable)?;
    Ok((vec![name], pages))
}

/// LibreOffice's messages name paths and source lines, so they go to the log and not to the requester. A log that
/// cannot be written is ignored.
fn log(why: &str) {
    drop(writeln!(std::io::stderr(), "{why}"));
}

fn unwritten(why: &str, job: &ConvertJob) -> Rejection {
    log(why);
    match &job.options.pages {
        Some(pages) => unreadable(format!("LibreOffice wrote nothing: does it have the pages {pages:?}?")),
        None => unreadable(format!("LibreOffice could not write it as {}", job.to)),
    }
}

/// One image of each requested page of a PDF.
fn images(pdf: &Path, job: &ConvertJob) -> Result<(Vec<String>, u32), Rejection> {
    let wanted = |number| job.options.takes_page(number);
    let renderer = PageRenderer { wanted: &wanted, width: job.options.png_width, max_pages: job.most_pages };
    let mut names = Vec::new();
    let mut left = job.largest_output;
    let write = |number, image: Vec<u8>| {
        left = left.checked_sub(image.len() as u64).ok_or_else(|| {
            let limit = job.largest_output;
            format!("the images together exceed the limit of {limit} bytes: ask for fewer pages, or a smaller width")
        })?;
        let name = format!("page-{number}.png");
        fs::write(job.folder.join(&name), image).map_err(|error| error.to_string())?;
        names.push(name);
        Ok(())
    };
    let pages = renderer.render(fs::read(pdf).map_err(unreadable)?, write).map_err(unreadable)?;
    Ok((names, pages))
}

/// Starts LibreOffice and converts the warm-up document once.
///
/// # Errors
/// A sentence that says what is wrong with the installation and what to do.
pub(super) fn start(office: &Path, folder: &Path, usage: &ProcessUsage) -> Result<LibreOfficeKit, String> {
    let mut kit =
        LibreOfficeKit::start(office, &folder.join("profile")).map_err(|error: KitError| error.to_string())?;
    let warm = folder.join("jobs/warm");
    fs::create_dir_all(&warm).map_err(|error| error.to_string())?;
    fs::write(warm.join("in.docx"), warmup_document::docx()).map_err(|error| error.to_string())?;
    let job = ConvertJob {
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
        Reply::Rejected { why, .. } => Err(format!("LibreOffice cannot convert the warm-up document: {why}")),
        other => Err(format!("LibreOffice cannot convert the warm-up document: {other:?}")),
    }
}
