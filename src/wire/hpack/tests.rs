//! HPACK against RFC 7541's examples and against an implementation that none of us wrote.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::wire::test_support::{Rng, mutated};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const LIST_BYTES_MAX: usize = 1 << 20;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let mut fields = Fields::new();
    decoder.decode(block, LIST_BYTES_MAX, &mut |field: Field<'_>| {
        fields.push((field.name.to_vec(), field.value.to_vec()));
    })?;
    Ok(fields)
}

fn check_decodes(decoder: &mut Decoder, hex: &str, expected: &[(&str, &str)], table_bytes: usize) {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let block: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let fields = decode(decoder, &block).unwrap();
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (std::str::from_utf8(name).unwrap(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(fields, expected);
    assert_eq!(decoder.table_bytes(), table_bytes);
}

#[test]
fn rfc7541_c1_integers() {
    for (value, prefix_bits, bytes) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])] {
        let mut output = BytesMut::new();
        encode_integer(value, prefix_bits, 0, &mut output);
        assert_eq!(output, bytes);
        assert_eq!(integer::decode(&mut &bytes[..], prefix_bits), Ok(value as u32));
    }
}

#[test]
fn rfc7541_c2_literal_forms() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check_decodes(&mut Decoder::new(4096), custom, &[("custom-key", "custom-header")], 55);
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    check_decodes(&mut Decoder::new(4096), path, &[(":path", "/sample/path")], 0);
    let password = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check_decodes(&mut Decoder::new(4096), password, &[("password", "secret")], 0);
    check_decodes(&mut Decoder::new(4096), "82", &[(":method", "GET")], 0);
}

#[test]
fn rfc7541_c4_requests_with_huffman() {
    let mut decoder = Decoder::new(4096);
    let mut expected = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    check_decodes(
        &mut decoder,
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        &expected,
        57,
    );
    expected.push(("cache-control", "no-cache"));
    check_decodes(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf", &expected, 110);
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    let block = "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf";
    check_decodes(&mut decoder, block, &third, 164);
}

#[test]
fn rfc7541_c6_responses_evict_from_a_table_of_256_bytes() {
    let mut decoder = Decoder::new(256);
    let first = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let block = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    check_decodes(&mut decoder, block, &first, 222);
    let mut second = first;
    second[0].1 = "307";
    check_decodes(&mut decoder, "4883 640e ffc1 c0bf", &second, 222);
}

#[test]
fn rfc7541_4_2_size_updates_come_first_and_within_settings() {
    let mut decoder = Decoder::new(256);
    assert_eq!(decode(&mut decoder, &[0x20, 0x3f, 0xe1, 0x01, 0x82]).unwrap().len(), 1);
    assert_eq!(decode(&mut decoder, &[0x82, 0x20]), Err(HpackError::TableSizeUpdate));
    assert_eq!(
        decode(&mut decoder, &[0x20, 0x20, 0x20]),
        Err(HpackError::TableSizeUpdate)
    );
    // 257, where 256 are allowed.
    assert_eq!(
        decode(&mut decoder, &[0x3f, 0xe2, 0x01]),
        Err(HpackError::TableSizeUpdate)
    );
}

#[test]
fn rfc7541_4_4_name_of_an_evicted_entry_is_kept() {
    let mut decoder = Decoder::new(64);
    decode(&mut decoder, b"\x40\x04name\x05value").unwrap();
    // The new entry takes its name from the only one there is, which it evicts.
    let fields = decode(&mut decoder, b"\x7e\x10abcdefghijklmnop\xbe").unwrap();
    assert_eq!(fields[0], (b"name".to_vec(), b"abcdefghijklmnop".to_vec()));
    assert_eq!(fields[1], fields[0]);
    // An entry larger than the table empties it and is a field all the same.
    let fields = decode(&mut decoder, &[&b"\x7e\x30"[..], &[b'x'; 48]].concat()).unwrap();
    assert_eq!(fields[0].0, b"name");
    assert_eq!(decoder.table_bytes(), 0);
}

#[test]
fn rfc7541_5_1_integers_do_not_overflow() {
    for block in [
        &b"\xff\xff\xff\xff\xff\x0f"[..],
        b"\xff\x80\x80\x80\x80\x80\x01",
        b"\x00\x7f\xff\xff\xff\xff\x7f",
    ] {
        let error = decode(&mut Decoder::new(4096), block).unwrap_err();
        assert_eq!(error, HpackError::IntegerOverflow);
    }
    assert_eq!(decode(&mut Decoder::new(4096), b"\xff"), Err(HpackError::Truncated));
}

#[test]
fn rfc7541_5_2_padding_is_fewer_than_eight_ones() {
    let mut output = Vec::new();
    for (code, expected) in [
        // 'a' is 00011.
        (&[0b0001_1111][..], Ok(())),
        (&[0b0001_1110], Err(HpackError::HuffmanPadding)),
        (&[0b0001_1000], Err(HpackError::HuffmanPadding)),
        (&[0b0001_1111, 0xff], Err(HpackError::HuffmanPadding)),
        (&[0xff], Err(HpackError::HuffmanPadding)),
        (&[0xff, 0xff, 0xff, 0xff], Err(HpackError::HuffmanEos)),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Err(HpackError::HuffmanEos)),
    ] {
        assert_eq!(huffman_decode(code, &mut output), expected, "{code:x?}");
    }
    assert_eq!(output, b"a");
}

#[test]
fn rfc7541_6_1_index_zero_and_unknown_ones_are_errors() {
    assert_eq!(decode(&mut Decoder::new(4096), &[0x80]), Err(HpackError::UnknownIndex));
    assert_eq!(decode(&mut Decoder::new(4096), &[0xbe]), Err(HpackError::UnknownIndex));
    assert_eq!(
        decode(&mut Decoder::new(4096), &[0x7f, 0x00]),
        Err(HpackError::UnknownIndex)
    );
}

#[test]
fn fields_over_the_list_limit_are_dropped_but_join_the_table() {
    let mut decoder = Decoder::new(4096);
    let mut names = Vec::new();
    let mut sink = |field: Field<'_>| names.push(field.name.to_vec());
    let outcome = decoder.decode(b"\x82\x40\x01a\x01b\x40\x01c\x01d\x82", 42 + 34, &mut sink);
    assert_eq!(outcome, Ok(Outcome::TooLarge));
    assert_eq!(names, [b":method".to_vec(), b"a".to_vec()]);
    assert_eq!(decode(&mut decoder, &[0xbe]).unwrap(), [(b"c".to_vec(), b"d".to_vec())]);
}

#[test]
fn names_and_values_are_judged() {
    let check = |block: &[u8], name: bool, value: bool| {
        let mut seen = None;
        let mut sink = |field: Field<'_>| seen = Some((field.name_valid, field.value_valid));
        Decoder::new(4096).decode(block, LIST_BYTES_MAX, &mut sink).unwrap();
        assert_eq!(seen, Some((name, value)), "{block:?}");
    };
    check(b"\x00\x01a\x01b", true, true);
    check(b"\x00\x00\x00", false, true);
    check(b"\x00\x01A\x00", false, true);
    check(b"\x00\x01:\x00", false, true);
    check(b"\x00\x02a:\x00", false, true);
    check(b"\x00\x02a \x00", false, true);
    check(b"\x00\x01a\x02\x0db", true, false);
    check(b"\x00\x01a\x02 b", true, false);
    check(b"\x00\x01a\x03b\x00c", true, false);
    check(b"\x00\x01a\x02\xc3\xa4", true, true);
}

#[test]
fn every_symbol_round_trips_through_huffman() {
    for symbol in 0..=255u8 {
        let (mut code, mut text) = (Vec::new(), Vec::new());
        huffman_encode(&[symbol; 3], &mut code);
        huffman_decode(&code, &mut text).unwrap();
        assert_eq!(text, [symbol; 3]);
    }
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let name = prop_oneof![
        (0..STATIC_TABLE.len()).prop_map(|index| STATIC_TABLE[index].0.as_bytes().to_vec()),
        "[a-z-]{1,20}".prop_map(String::into_bytes),
        "x-[ab]".prop_map(String::into_bytes),
    ];
    let value = prop_oneof![
        "[ -~]{0,40}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200),
        (0..STATIC_TABLE.len()).prop_map(|index| STATIC_TABLE[index].1.as_bytes().to_vec()),
    ];
    proptest::collection::vec((name, value), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn integers_round_trip(value in 0usize..1 << 28, prefix_bits in 1u32..=8) {
        let mut output = BytesMut::new();
        encode_integer(value, prefix_bits, 0, &mut output);
        let mut rest = &output[..];
        prop_assert_eq!(integer::decode(&mut rest, prefix_bits), Ok(value as u32));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn huffman_round_trips(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut code, mut back) = (Vec::new(), b"in front".to_vec());
        huffman_encode(&text, &mut code);
        huffman_decode(&code, &mut back).unwrap();
        prop_assert_eq!(&back[8..], &text[..]);
    }

    #[test]
    fn huffman_decodes_what_it_accepts_to_the_same_code(code in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (mut text, mut back) = (Vec::new(), Vec::new());
        if huffman_decode(&code, &mut text).is_ok() {
            huffman_encode(&text, &mut back);
            prop_assert_eq!(back, code);
        }
    }

    #[test]
    fn blocks_of_another_encoder_are_decoded(blocks in proptest::collection::vec(any_fields(), 1..8)) {
        let mut encoder = fluke_hpack::Encoder::new();
        let mut decoder = Decoder::new(4096);
        for fields in blocks {
            let block = encoder.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(decode(&mut decoder, &block).unwrap(), fields);
        }
    }

    #[test]
    fn our_blocks_are_decoded_by_another_decoder_and_ours(fields in any_fields()) {
        let mut block = BytesMut::new();
        for (name, value) in &fields {
            encode_field(std::str::from_utf8(name).unwrap(), value, &mut block);
        }
        prop_assert_eq!(&decode(&mut Decoder::new(4096), &block).unwrap(), &fields);
        prop_assert_eq!(fluke_hpack::Decoder::new().decode(&block).unwrap(), fields);
    }

    #[test]
    fn tables_agree_with_another_decoder(seed in any::<u64>()) {
        // Blocks of indexed and literal fields with all the forms, Huffman or not, some of them beyond the tables.
        let mut rng = Rng::new(seed);
        let mut ours = Decoder::new(4096);
        let mut theirs = fluke_hpack::Decoder::new();
        for _ in 0..20 {
            let block = random_block(&mut rng);
            let their_fields = theirs.decode(&block);
            match decode(&mut ours, &block) {
                Ok(fields) => prop_assert_eq!(their_fields.unwrap(), fields),
                Err(_) => {
                    prop_assert!(their_fields.is_err());
                    break;
                }
            }
        }
    }
}

fn random_block(rng: &mut Rng) -> Vec<u8> {
    let mut block = BytesMut::new();
    for _ in 0..rng.below(6) {
        let index = if rng.below(20) == 0 { 130 } else { 1 + rng.below(64) };
        match rng.below(3) {
            0 => encode_indexed(index, &mut block),
            form => {
                let (prefix_bits, pattern) = if form == 1 { (6, 0x40) } else { (4, 0x10) };
                let index = index * rng.below(2);
                encode_integer(index, prefix_bits, pattern, &mut block);
                for _ in usize::from(index > 0)..2 {
                    let len = 1 + rng.below(60);
                    let text: Vec<u8> = (0..len).map(|_| b'a' + rng.below(26) as u8).collect();
                    let (code, pattern) = if rng.below(2) == 0 {
                        let mut code = Vec::new();
                        huffman_encode(&text, &mut code);
                        (code, 0x80)
                    } else {
                        (text, 0)
                    };
                    encode_integer(code.len(), 7, pattern, &mut block);
                    block.extend_from_slice(&code);
                }
            }
        }
    }
    block.to_vec()
}

#[test]
fn thousand_fuzzed_inputs_do_not_panic() {
    let mut rng = Rng::new(1);
    for _ in 0..1000 {
        let blocks: Vec<Vec<u8>> = (0..3).map(|_| random_block(&mut rng)).collect();
        let seed = blocks.join(&0xff);
        fuzz_hpack(&mutated(&mut rng, &[&seed]));
    }
}
