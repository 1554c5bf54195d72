use hayro::hayro_syntax::Pdf;
use lopdf::{Object, Stream, dictionary};

use super::*;

/// A page for each word; each has a link to the next, the paper stands in the tree, and a description of all.
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

fn finished(finish: &Finish, files: &[(&str, &[&str])]) -> Vec<Named> {
    let files = files.iter().map(|(name, words)| ((*name).to_owned(), pdf(words))).collect();
    finish.apply(files).unwrap()
}

#[test]
fn pages_of_all_files_are_in_order_and_have_their_paper() {
    let merge = Finish { merge: true, ..Finish::default() };
    let made = finished(&merge, &[("a", &["one", "two"]), ("b", &["three"])]);
    assert_eq!((made.len(), &*made[0].0), (1, "a"));
    assert_eq!(words(&made[0].1).0, ["one", "two", "three"]);
    let document = Document::load_mem(&made[0].1).unwrap();
    for page in document.get_pages().into_values() {
        let page = document.get_dictionary(page).unwrap();
        assert_eq!(page.get(b"MediaBox").unwrap().as_array().unwrap().len(), 4);
        assert!(!page.has(b"StructParents"));
    }
    let catalog = document.catalog().unwrap();
    assert!(catalog.has(b"Metadata") && catalog.has(b"Lang"));
    assert_eq!(Pdf::new(made[0].1.to_vec()).unwrap().pages().len(), 3, "another reader agrees");
}

#[test]
fn a_part_holds_nothing_of_the_other_pages() {
    let split = |split| Finish { split: Some(split), ..Finish::default() };
    let halves = finished(&split(Split::Every(2)), &[("a", &["one", "two", "three"])]);
    let found: Vec<_> = halves.iter().map(|(name, file)| (&**name, words(file))).collect();
    let both = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found[0], ("a_0", (both(&["one", "two"]), both(&["one", "two"]))));
    assert_eq!(found[1], ("a_1", (both(&["three"]), both(&["three"]))));
    let ranges = Split::Ranges { ranges: vec![(3, 3), (1, 2), (2, 2)], unify: true };
    let picked = finished(&split(ranges), &[("a", &["one", "two", "three"])]);
    assert_eq!((&*picked[0].0, words(&picked[0].1).0), ("a", both(&["three", "one", "two", "two"])));
}

#[test]
fn a_locked_file_opens_with_its_passwords_alone() {
    let lock = |user: &str, owner: &str| Some(Lock { user: user.into(), owner: owner.into() });
    let opens = |finish: &Finish, password: &str| {
        let made = finished(finish, &[("a", &["secret"])]).remove(0).1.to_vec();
        assert!(!made.windows(6).any(|part| part == b"secret") && made.windows(4).any(|part| part == b"/AES"));
        Pdf::new_with_password(made, password).is_ok()
    };
    let finish = Finish { lock: lock("sésame", "boss"), ..Finish::default() };
    assert_eq!(["sésame", "boss", "", "Sésame"].map(|given| opens(&finish, given)), [true, true, false, false]);
    let finish = Finish { lock: lock("", "boss"), merge: true, ..Finish::default() };
    assert_eq!(["", "boss"].map(|given| opens(&finish, given)), [true, true], "anybody may read it");
}

#[test]
fn a_description_replaces_what_it_names() {
    let info =
        Info::read(r#"{"Title":"Grüße","Keywords":["a","b"],"Trapped":"true","CreationDate":"2026-01-31T12:00:00Z"}"#);
    let made = finished(&Finish { info: info.unwrap(), ..Finish::default() }, &[("a", &["one"])]);
    let document = Document::load_mem(&made[0].1).unwrap();
    let info = document.get_dictionary(document.trailer.get(b"Info").unwrap().as_reference().unwrap()).unwrap();
    let text = |key: &[u8]| lopdf::decode_text_string(info.get(key).unwrap()).unwrap();
    assert_eq!((text(b"Title"), text(b"Keywords")), ("Grüße".into(), "a, b".into()));
    assert_eq!(text(b"CreationDate"), "D:20260131120000+00'00'");
    assert_eq!(info.get(b"Trapped").unwrap().as_name().unwrap(), b"True");
    assert!(info.has(b"Author") && !document.catalog().unwrap().has(b"Metadata"));
}

#[test]
fn what_cannot_be_taken_apart_says_so() {
    let merge = Finish { merge: true, ..Finish::default() };
    let no = merge.apply(vec![("a".into(), pdf(&["one"])), ("b".into(), "no".into())]).unwrap_err();
    assert_eq!((no.status, &*no.code), (422, "pdf_unreadable"));
    assert!(no.detail.contains("\"b\""), "{no}");
    let lock = Some(Lock { user: "x".into(), owner: String::new() });
    let locked = Finish { lock, ..Finish::default() }.apply(vec![("a".into(), pdf(&["one"]))]).unwrap();
    let again = merge.apply([locked.clone(), locked].concat()).unwrap_err();
    assert_eq!((again.status, &*again.code), (422, "pdf_encrypted"));
    let missing = Split::Ranges { ranges: vec![(2, 3)], unify: false };
    let missing = Finish { split: Some(missing), ..Finish::default() }.apply(vec![("a".into(), pdf(&["one"]))]);
    assert_eq!(&*missing.unwrap_err().code, "pages_missing");
}
