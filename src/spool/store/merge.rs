//! Shows the chunks of a lane in order, wherever they are.
//!
//! Most often each generation has a stretch of its own, and is not looked into before its turn.

use std::{collections::VecDeque, ops::ControlFlow};

use bytes::Bytes;

use super::{Begin, Entry};
use crate::spool::{chunk::Key, error::StoreError};

/// Gives the next chunks of one generation, in order; none when there are no more.
pub(super) type Pages<'a> = Box<dyn Fn(Begin) -> Result<Vec<Entry>, StoreError> + 'a>;

/// One generation's part of a lane.
pub(super) struct Source<'a> {
    pub(super) generation: u64,
    /// No chunk of it has a smaller number, but for those before the beginning.
    pub(super) first: u64,
    pub(super) pages: Pages<'a>,
}

/// Shows the chunks of all sources from `from` on. A chunk that two of them have is shown
/// once, as the later generation has it.
pub(super) fn merge(
    mut sources: Vec<Source<'_>>,
    from: u64,
    visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    // The last is the first to be opened.
    sources.sort_by_key(|source| std::cmp::Reverse(source.first));
    let mut open: Vec<Opened<'_>> = Vec::new();
    let mut shown = None;
    loop {
        let next = open.iter().filter_map(Opened::head).min();
        if sources
            .last()
            .is_some_and(|source| next.is_none_or(|next| source.first <= next.number()))
        {
            let source = sources.pop().expect("it has just been looked at");
            open.push(Opened::new(source, from)?);
            continue;
        }
        let Some(next) = next else { return Ok(()) };
        let heads = open.iter_mut().filter(|opened| opened.head() == Some(next));
        let newest = heads.max_by_key(|opened| opened.generation);
        let (key, value) = newest.expect("the least head is one of them").take()?;
        if shown != Some(key) {
            shown = Some(key);
            if visit(key, value).is_break() {
                return Ok(());
            }
        }
    }
}

struct Opened<'a> {
    generation: u64,
    pages: Pages<'a>,
    page: VecDeque<Entry>,
}

impl<'a> Opened<'a> {
    fn new(source: Source<'a>, from: u64) -> Result<Self, StoreError> {
        let page = (source.pages)(Begin::At(from))?.into();
        Ok(Self {
            generation: source.generation,
            pages: source.pages,
            page,
        })
    }

    fn head(&self) -> Option<Key> {
        self.page.front().map(|(key, _)| *key)
    }

    /// The head, with the next one in its place.
    fn take(&mut self) -> Result<Entry, StoreError> {
        let entry = self.page.pop_front().expect("it has a head");
        if self.page.is_empty() {
            self.page = (self.pages)(Begin::After(entry.0))?.into();
        }
        Ok(entry)
    }
}
