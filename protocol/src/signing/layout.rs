//! Writes signed bytes. Integers are big-endian and of fixed width, texts and lists carry a 32-bit count first, so no two different statements of one kind
//! share a layout. There is no reader: bytes are rebuilt from a decoded statement and compared by signature.

use crate::network::NetworkId;

/// The bytes of one statement, in the making.
#[derive(Debug)]
pub struct Layout {
    bytes: Vec<u8>,
}

impl Layout {
    /// Starts with the domain string and the network id.
    pub fn open(domain: &str, network: &NetworkId) -> Self {
        let mut out = Self { bytes: Vec::with_capacity(512) };
        out.text(domain);
        out.text(network.as_str());
        out
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes whose number is fixed by the kind of statement.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A count of what follows. Lists longer than 32 bits can count are refused by every limit long before.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A text: its length in bytes, then UTF-8.
    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.fixed(text.as_bytes());
    }

    /// A list: its length, then each item.
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            each(self, item);
        }
    }

    /// 0, or 1 and the value.
    pub fn option<T>(&mut self, value: Option<&T>, each: impl FnOnce(&mut Self, &T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                each(self, value);
            }
        }
    }

    /// The finished bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
