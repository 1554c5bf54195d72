//! Post-processing of PDFs, checked with other readers.

use bytes::Bytes;
use hayro::hayro_syntax::Pdf;
use lopdf::{Object, Stream, dictionary};
use pipeline::documents::{Entry, Finish, Lock, Split};
use sha2::{Digest as _, Sha256};

use super::*;

/// A PDF with one page per word. Each page links to the next and inherits its paper size; the document has metadata.
fn pdf(words: &[&str]) -> Bytes {
    let mut document = Document::with_version("1.6");
    let tree = document.new_object_id();
    let pages: Vec<_> = words.iter().map(|_| document.new_object_id()).collect();
    for (number, word) in words.iter().enumerate() {
        let text = document.add_object(Stream::new(dictionary! {}, format!("% {word}").into_bytes()));
        let next = pages[(number + 1) % pages.len()];
        let link = dictionary! { "Type" => "Annot", "Subtype" => "Link", "Dest" => vec![next.into(), "Fit".into()] };
        let page = dictionary! {
            "Type" => "Page", "Parent" => tree, "Contents" => text, "Annots" => vec![link.into()], "StructParents" => 0,
        };
        document.set_object(pages[number], page);
    }
    let count = i64::try_from(words.len()).unwrap();
    let kids: Vec<Object> = pages.into_iter().map(Object::from).collect();
    let paper: Vec<Object> = [0, 0, 100, 200].map(Object::from).to_vec();
    let root = dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count, "MediaBox" => paper };
    document.set_object(tree, root);
    let about = document.add_object(Stream::new(dictionary! {}, b"<x:xmpmeta/>".to_vec()));
    let catalog =
        document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree, "Metadata" => about, "Lang" => "de" });
    document.trailer.set("Root", catalog);
    let info = document.add_object(dictionary! { "Title" => Object::string_literal("Old"), "Author" => "A" });
    document.trailer.set("Info", info);
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).unwrap();
    bytes.into()
}

/// The words of the pages in order, and all words that are anywhere in the file.
fn words(file: &[u8]) -> (Vec<String>, Vec<String>) {
    let mut document = Document::load_mem(file).unwrap();
    document.decompress();
    let word = |content: &[u8]| {
        std::str::from_utf8(content).ok().and_then(|text| text.strip_prefix("% ")).map(|word| word.trim().to_owned())
    };
    let pages = document.get_pages().into_values().map(|page| word(&document.get_page_content(page)).unwrap());
    let anywhere = document.objects.values().filter_map(|object| word(&object.as_stream().ok()?.content)).collect();
    (pages.collect(), anywhere)
}

/// The resulting files with their names, or the rejection.
fn try_finish(finish: &Finish, files: &[Bytes]) -> Result<Vec<(String, Bytes)>, Rejection> {
    let place = tempfile::tempdir().unwrap();
    for (number, file) in files.iter().enumerate() {
        fs::write(place.path().join(format!("{number}.pdf")), file).unwrap();
    }
    let (folder, count) = (place.path().to_path_buf(), files.len());
    let job = FinishJob { folder, count, finish: finish.clone(), largest_output: 10_000, most_pages: 5 };
    match super::finish(&job, &ProcessUsage::open().unwrap()) {
        Reply::Done(done) => {
            let read = |name: String| (name.clone(), fs::read(place.path().join(name)).unwrap().into());
            Ok(done.files.into_iter().map(read).collect())
        }
        Reply::Rejected { fault, why } => Err((fault, why)),
        other => panic!("{other:?}"),
    }
}

fn finished(finish: &Finish, files: &[&[&str]]) -> Vec<(String, Bytes)> {
    try_finish(finish, &files.iter().map(|words| pdf(words)).collect::<Vec<_>>()).unwrap()
}

fn split(split: Split) -> Finish {
    Finish { split: Some(split), ..Finish::default() }
}

#[test]
fn merged_pages_are_in_order_and_have_their_paper_size() {
    let merge = Finish { merge: true, ..Finish::default() };
    let made = finished(&merge, &[&["one", "two"], &["three"]]);
    assert_eq!((made.len(), &*made[0].0), (1, "done-0.pdf"));
    assert_eq!(words(&made[0].1).0, ["one", "two", "three"]);
    assert_eq!(finished(&merge, &[&["one", "two"], &["three"]]), made, "the same merge gives the same bytes");
    let document = Document::load_mem(&made[0].1).unwrap();
    for page in document.get_pages().into_values() {
        let page = document.get_dictionary(page).unwrap();
        assert_eq!(page.get(b"MediaBox").unwrap().as_array().unwrap().len(), 4);
        assert!(!page.has(b"StructParents"));
    }
    let catalog = document.catalog().unwrap();
    assert!(catalog.has(b"Metadata") && catalog.has(b"Lang") && document.trailer.has(b"ID"));
    assert!(made[0].1.windows(10).any(|part| part == b"<x:xmpmeta"), "the metadata is found without parsing the PDF");
    assert_eq!(Pdf::new(made[0].1.to_vec()).unwrap().pages().len(), 3, "another reader agrees");
}

#[test]
fn a_part_has_no_objects_of_other_pages() {
    let halves = finished(&split(Split::Every(2)), &[&["one", "two", "three"]]);
    let found: Vec<_> = halves.iter().map(|(name, file)| (&**name, words(file))).collect();
    let all = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found[0], ("done-0_0.pdf", (all(&["one", "two"]), all(&["one", "two"]))));
    assert_eq!(found[1], ("done-0_1.pdf", (all(&["three"]), all(&["three"]))));
    let ranges = Split::Ranges { ranges: vec![(3, 3), (1, 2), (2, 2)], unify: true };
    let picked = finished(&split(ranges), &[&["one", "two", "three"]]);
    let (pages, mut anywhere) = words(&picked[0].1);
    anywhere.sort();
    assert_eq!((&*picked[0].0, pages), ("done-0.pdf", all(&["three", "one", "two", "two"])));
    assert_eq!(anywhere, all(&["one", "three", "two"]), "a page that is requested twice shares its content");
}

#[test]
fn an_encrypted_file_opens_only_with_its_passwords() {
    let lock = |user: &str, owner: &str| Some(Lock { user: user.into(), owner: owner.into() });
    let opens = |finish: &Finish, password: &str| {
        let made = finished(finish, &[&["secret"]]).remove(0).1.to_vec();
        assert!(!made.windows(6).any(|part| part == b"secret") && made.windows(4).any(|part| part == b"/AES"));
        Pdf::new_with_password(made, password).is_ok()
    };
    let finish = Finish { lock: lock("sésame", "boss"), ..Finish::default() };
    assert_eq!(["sésame", "boss", "", "Sésame"].map(|given| opens(&finish, given)), [true, true, false, false]);
    let finish = Finish { lock: lock("", "boss"), merge: true, ..Finish::default() };
    assert_eq!(["", "boss"].map(|given| opens(&finish, given)), [true, true], "anyone may read it");
}

#[test]
fn metadata_replaces_the_entries_it_names() {
    let info = [("Title", Entry::Text("Grüße".into())), ("Trapped", Entry::Name("True".into()))];
    let info = info.map(|(name, entry)| (name.to_owned(), entry)).into();
    let made = finished(&Finish { info, ..Finish::default() }, &[&["one"]]);
    let document = Document::load_mem(&made[0].1).unwrap();
    let info = document.get_dictionary(document.trailer.get(b"Info").unwrap().as_reference().unwrap()).unwrap();
    assert_eq!(lopdf::decode_text_string(info.get(b"Title").unwrap()).unwrap(), "Grüße");
    assert_eq!(info.get(b"Trapped").unwrap().as_name().unwrap(), b"True");
    assert!(info.has(b"Author") && !document.catalog().unwrap().has(b"Metadata"));
}

#[test]
fn failures_are_reported_with_their_fault() {
    let merge = Finish { merge: true, ..Finish::default() };
    let (fault, why) = try_finish(&merge, &[pdf(&["one"]), "no".into()]).unwrap_err();
    assert!(fault == DocumentFault::PdfUnreadable && why.contains("document 2"), "{why}");
    let lock = Some(Lock { user: "x".into(), owner: String::new() });
    let locked = finished(&Finish { lock, ..Finish::default() }, &[&["one"]]).remove(0).1;
    assert_eq!(try_finish(&merge, &[pdf(&["one"]), locked]).unwrap_err().0, DocumentFault::PdfEncrypted);
    let range = |first, last| split(Split::Ranges { ranges: vec![(first, last)], unify: false });
    assert_eq!(try_finish(&range(2, 3), &[pdf(&["one"])]).unwrap_err().0, DocumentFault::PagesMissing);
}

#[test]
fn limits_apply_to_all_results_together() {
    let again = Split::Ranges { ranges: vec![(1, 1); 6], unify: true };
    let (fault, why) = try_finish(&split(again), &[pdf(&["one"])]).unwrap_err();
    assert!(fault == DocumentFault::TooLarge && why.contains("6 pages, at most 5"), "{why}");
    // Incompressible, 6 KB per file.
    let noise: String = (0..200_u32).map(|number| format!("{:x}", Sha256::digest(number.to_le_bytes()))).collect();
    let long = [noise.as_str(), "b"];
    let (fault, why) = try_finish(&Finish { merge: true, ..Finish::default() }, &[pdf(&long), pdf(&long)]).unwrap_err();
    assert!(fault == DocumentFault::TooLarge && why.contains("10000 bytes"), "{why}");
}
