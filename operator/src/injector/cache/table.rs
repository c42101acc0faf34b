//! What a watch has brought, by namespace.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::watcher::Event;

/// One that a [`Table`] keeps.
pub trait Entry {
    /// Unique in its namespace.
    fn name(&self) -> &str;
}

/// All entries of a namespace, by their names.
type Entries<T> = Arc<Vec<Arc<T>>>;

/// Readers get the entries of a namespace as they are at that moment, without a copy.
#[derive(Debug)]
pub struct Table<T>(RwLock<HashMap<String, Entries<T>>>);

/// Where an entry belongs.
pub struct Placed<T> {
    pub namespace: String,
    pub entry: T,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Entry> Table<T> {
    pub fn of(&self, namespace: &str) -> Entries<T> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).cloned().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|entries| entries.len()).sum()
    }

    fn put(&self, Placed { namespace, entry }: Placed<T>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        insert(all.entry(namespace).or_default(), entry);
    }

    fn remove(&self, namespace: &str, name: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = all.get_mut(namespace) else { return };
        // Copied where somebody reads it at this moment.
        let mut kept = entries.to_vec();
        kept.retain(|entry| entry.name() != name);
        kept.shrink_to_fit();
        if kept.is_empty() {
            all.remove(namespace);
        } else {
            *entries = Arc::new(kept);
        }
    }

    fn replace(&self, new: HashMap<String, Entries<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

fn insert<T: Entry>(entries: &mut Entries<T>, entry: T) {
    let mut new = entries.to_vec();
    match new.binary_search_by(|other| other.name().cmp(entry.name())) {
        Ok(at) => new[at] = Arc::new(entry),
        Err(at) => new.insert(at, Arc::new(entry)),
    }
    *entries = Arc::new(new);
}

/// Brings the events of one watch into a table. A list that is under way, the first or a later one, is put in its place
/// as a whole: until then, what was known before holds.
pub struct Filler<T> {
    table: Arc<Table<T>>,
    listed: HashMap<String, Vec<Arc<T>>>,
}

impl<T: Entry> Filler<T> {
    pub fn new(table: Arc<Table<T>>) -> Self {
        Self {
            table,
            listed: HashMap::new(),
        }
    }

    /// Takes an event; true where a list is complete by it.
    pub fn take<K: Into<Placed<T>>>(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let Placed { namespace, entry } = object.into();
                self.listed.entry(namespace).or_default().push(Arc::new(entry));
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let sorted = listed.into_iter().map(|(namespace, mut entries)| {
                    entries.sort_by(|a, b| a.name().cmp(b.name()));
                    entries.shrink_to_fit();
                    (namespace, Arc::new(entries))
                });
                self.table.replace(sorted.collect());
                return true;
            }
            Event::Apply(object) => self.table.put(object.into()),
            Event::Delete(object) => {
                let Placed { namespace, entry } = object.into();
                self.table.remove(&namespace, entry.name());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Number(String, u8);

    impl Entry for Number {
        fn name(&self) -> &str {
            &self.0
        }
    }

    fn number(namespace: &str, name: &str, value: u8) -> Placed<Number> {
        Placed {
            namespace: namespace.to_owned(),
            entry: Number(name.to_owned(), value),
        }
    }

    fn shown(table: &Table<Number>, namespace: &str) -> Vec<(String, u8)> {
        table.of(namespace).iter().map(|n| (n.0.clone(), n.1)).collect()
    }

    #[test]
    fn a_list_takes_its_place_as_a_whole_and_changes_one_by_one() {
        let table = Arc::new(Table::default());
        let mut filler = Filler::new(Arc::clone(&table));
        assert!(!filler.take::<Placed<Number>>(Event::Init));
        assert!(!filler.take(Event::InitApply(number("a", "two", 2))));
        assert!(!filler.take(Event::InitApply(number("a", "one", 1))));
        assert_eq!(table.len(), 0, "half a list is none");
        assert!(filler.take::<Placed<Number>>(Event::InitDone));
        assert_eq!(shown(&table, "a"), [("one".to_owned(), 1), ("two".to_owned(), 2)]);

        let before = table.of("a");
        filler.take(Event::Apply(number("a", "one", 3)));
        filler.take(Event::Apply(number("b", "one", 4)));
        filler.take(Event::Delete(number("a", "two", 0)));
        filler.take(Event::Delete(number("a", "absent", 0)));
        filler.take(Event::Delete(number("absent", "one", 0)));
        assert_eq!(shown(&table, "a"), [("one".to_owned(), 3)]);
        assert_eq!(before.len(), 2, "who reads sees the moment at which it began");
        filler.take(Event::Delete(number("a", "one", 0)));
        assert_eq!((table.len(), shown(&table, "absent")), (1, vec![]));

        // A watch that broke lists anew: what went meanwhile goes.
        filler.take::<Placed<Number>>(Event::Init);
        filler.take(Event::InitApply(number("c", "new", 5)));
        assert_eq!(shown(&table, "b"), [("one".to_owned(), 4)]);
        filler.take::<Placed<Number>>(Event::InitDone);
        assert_eq!((shown(&table, "b"), table.len()), (vec![], 1));
    }
}
