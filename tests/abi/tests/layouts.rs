//! Sizes and offsets of every structure on the wire.

use firn_abi_tests::{Headers, Question, ask};
use firn_xen::wire::{LAYOUTS, ring};

/// What C says a layout's size is. The ring's header is the part of a structure
/// before its array of entries.
fn size_question(header: &str, c_type: &str) -> Question {
    match c_type {
        "struct blkif_sring" => Question::offset_of(header, c_type, "ring"),
        _ => Question::size_of(header, c_type),
    }
}

#[test]
fn structures_are_laid_out_as_in_c() {
    let mut questions = Vec::new();
    let mut ours = Vec::new();
    for layout in LAYOUTS {
        let (header, c_type) = (layout.header, layout.c_type);
        questions.push(size_question(header, c_type));
        ours.push(layout.size);
        for (field, offset) in layout.fields {
            questions.push(Question::offset_of(header, c_type, field));
            ours.push(*offset);
        }
    }
    assert!(questions.len() > 100, "only {} questions", questions.len());
    let headers = Headers::find().unwrap_or_else(|error| panic!("{error}"));
    let theirs = ask(&headers, &questions).unwrap_or_else(|error| panic!("{error:#}"));
    let wrong: Vec<String> = questions
        .iter()
        .zip(ours.iter().zip(theirs))
        .filter(|(_, (ours, theirs))| **ours as i128 != *theirs)
        .map(|(question, (ours, theirs))| {
            let Question { header, expression } = question;
            format!("{header}: {expression} is {theirs}, firn has {ours}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} sizes and offsets agree", questions.len());
}

#[test]
fn the_ring_header_ends_where_the_entries_start() {
    let header = LAYOUTS
        .iter()
        .find(|layout| layout.c_type == "struct blkif_sring");
    assert_eq!(header.map(|layout| layout.size), Some(ring::ENTRIES));
}
