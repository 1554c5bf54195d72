//! One conversion by LibreOffice: open, prepare, save, verify, rename.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pipeline::documents::{Family, Format, Options};
use serde_json::json;
use tokio::time::Instant;

use super::kit::{Document, Kit, KitError, OpenError};
use super::protocol::{Done, Fault, Job, Reply};
use super::usage::Usage;
use super::{filter, sheet, verify};

/// No dialogs, no macros but signed ones from trusted places, of which there are none.
const LOAD_OPTIONS: &str = "Batch=1,MacroSecurityLevel=3";
/// Read and write plain text as UTF-8.
const TEXT_FILTER: &str = "UTF8,LF";
/// Commas, double quotes, UTF-8, cells as shown.
const CSV_FILTER: &str = "44,34,76,1,,0,false,true,false";
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
    let outcome = open(kit, job).and_then(|document| {
        let ms_load = millis(began);
        let saving = Instant::now();
        prepare(&document, job)?;
        let (files, pages) = if job.to == Format::Png { pictures(&document, job)? } else { one_file(&document, job)? };
        Ok((files, pages, ms_load, millis(saving)))
    });
    match outcome {
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
        OpenError::Unreadable(why) => (Fault::Unreadable, why),
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
        _ => String::new(),
    };
    let name = format!("out.{}", job.to);
    let pages = save(document, job, &name, &filter)?;
    Ok((vec![name], pages))
}

fn save(document: &Document<'_>, job: &Job, name: &str, filter: &str) -> Result<u32, Rejected> {
    let unfinished = job.folder.join(format!("unfinished-{name}"));
    document.save(&unfinished, job.to.extension(), filter).map_err(unreadable)?;
    let pages = verify::file(&unfinished, job.to, job.largest_output, job.most_pages).map_err(unreadable)?;
    fs::rename(&unfinished, job.folder.join(name)).map_err(unreadable)?;
    Ok(pages)
}

/// A picture of each slide that is asked for; of a text or a spreadsheet the engine draws the first page only.
fn pictures(document: &Document<'_>, job: &Job) -> Result<(Vec<String>, u32), Rejected> {
    let slides = job.from.family() == Family::Slides;
    let parts = if slides { document.parts().map_err(unreadable)? } else { 1 };
    let mut files = Vec::new();
    for part in (0..parts).filter(|part| job.options.takes_page(part + 1)) {
        if files.len() >= job.most_pages as usize {
            return Err(unreadable(format!("more than {} pages", job.most_pages)));
        }
        if slides {
            document.turn_to(part).map_err(unreadable)?;
        }
        let name = format!("page-{}.png", part + 1);
        save(document, job, &name, "")?;
        if let Some(filter) = rescaled(job, &job.folder.join(&name))? {
            save(document, job, &name, &filter)?;
        }
        files.push(name);
    }
    if files.is_empty() {
        return Err(unreadable(format!("none of the pages asked for is among the {parts} of the document")));
    }
    let pages = u32::try_from(files.len()).unwrap_or(u32::MAX);
    Ok((files, pages))
}

/// The options that draw a picture again at the width asked for: the engine wants both sides, so its first drawing tells the
/// proportions.
fn rescaled(job: &Job, drawn: &Path) -> Result<Option<String>, Rejected> {
    let Some(width) = job.options.png_width else { return Ok(None) };
    let bytes = fs::read(drawn).map_err(unreadable)?;
    // The header chunk of a PNG begins with both sides (PNG specification, 11.2.2).
    let side = |at: usize| bytes.get(at..at + 4).and_then(|side| side.try_into().ok()).map(u32::from_be_bytes);
    let (Some(from), Some(height)) = (side(16), side(20)) else { return Err(unreadable("a PNG without a header")) };
    let height = (u64::from(height) * u64::from(width)).div_ceil(u64::from(from.max(1)));
    let filter = json!({
        "PixelWidth": {"type": "long", "value": width.to_string()},
        "PixelHeight": {"type": "long", "value": height.to_string()},
    });
    Ok(Some(filter.to_string()))
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
