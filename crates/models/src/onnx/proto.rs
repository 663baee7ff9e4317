//! The four shapes that a field of a protobuf message may have, and no more: ONNX needs no others.
//! Encoding: protobuf.dev/programming-guides/encoding. Field numbers stand where they are used.

/// Seven bits a byte, the lowest first; the eighth says that more follow.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A whole number. Negative ones take ten bytes, as int64 has it.
pub(crate) fn int(out: &mut Vec<u8>, field: u64, value: i64) {
    varint(out, field << 3);
    varint(out, value as u64);
}

pub(crate) fn float(out: &mut Vec<u8>, field: u64, value: f32) {
    varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}

/// A text, or a message that is written already.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    announce(out, field, value.len() as u64);
    out.extend(value);
}

/// What stands in front of `length` bytes that come later.
pub(crate) fn announce(out: &mut Vec<u8>, field: u64, length: u64) {
    varint(out, field << 3 | 2);
    varint(out, length);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those of the guide's examples.
    #[test]
    fn bytes_are_those_of_the_guide() {
        let check = |write: &dyn Fn(&mut Vec<u8>), expected: &[u8]| {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(out, expected);
        };
        check(&|out| int(out, 1, 150), &[0x08, 0x96, 0x01]);
        check(&|out| bytes(out, 2, b"testing"), b"\x12\x07testing");
        check(&|out| bytes(out, 3, &[0x08, 0x96, 0x01]), &[0x1a, 0x03, 0x08, 0x96, 0x01]);
        check(&|out| float(out, 4, 1.0), &[0x25, 0, 0, 0x80, 0x3f]);
        let two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        check(&|out| int(out, 1, -2), &two);
    }
}
