//! Bytes that leave no copy behind as they grow.

use std::io;

use zeroize::Zeroizing;

/// A growing text that is wiped when dropped, and at each move to a larger place.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
    /// Whether more than `limit` was written.
    pub(crate) is_over: bool,
}

impl Buffer {
    /// `limit` in bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::new()),
            limit,
            is_over: false,
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.extend(text.as_bytes());
    }

    pub(crate) fn push_char(&mut self, c: char) {
        self.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn extend(&mut self, more: &[u8]) {
        let length = self.bytes.len() + more.len();
        if length > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two().max(256)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }
}

impl io::Write for Buffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(more.len()) > self.limit {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.extend(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
