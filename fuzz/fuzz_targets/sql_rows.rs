//! Fuzzes rows as a database gives them that somebody else has written to.
#![no_main]

use claviger_store::fuzz::Rows;
use std::cell::RefCell;

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::new(Rows::open().expect("a database in memory"));
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| ROWS.with_borrow_mut(|rows| rows.decode(data)));
