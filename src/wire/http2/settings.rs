//! SETTINGS (RFC 9113 section 6.5): their values, defaults and bounds.

use bytes::{BufMut, BytesMut};

use super::{ErrorCode, FRAME_BYTES_MAX, WINDOW_BYTES_DEFAULT, WINDOW_MAX};

/// One end's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the HPACK table that this end decodes with.
    pub header_table_bytes: u32,
    /// Whether this end takes PUSH_PROMISE.
    pub push_enabled: bool,
    /// Streams that this end lets the other have open.
    pub concurrent_streams_max: u32,
    /// Window that each stream begins with, for what this end receives.
    pub initial_window_bytes: u32,
    /// Largest frame payload that this end takes.
    pub frame_bytes_max: u32,
    /// Largest list of fields that this end likes to take.
    pub header_list_bytes_max: u32,
}

/// A value outside its bounds, as the error that section 6.5.2 names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsError(pub ErrorCode);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            header_table_bytes: 4096,
            push_enabled: true,
            concurrent_streams_max: u32::MAX,
            initial_window_bytes: WINDOW_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            header_list_bytes_max: u32::MAX,
        }
    }
}

impl Settings {
    /// Takes in a SETTINGS payload, whose length is a multiple of six. Unknown ones are ignored.
    pub fn apply(&mut self, payload: &[u8]) -> Result<(), SettingsError> {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                1 => self.header_table_bytes = value,
                2 if value > 1 => return Err(SettingsError(ErrorCode::ProtocolError)),
                2 => self.push_enabled = value == 1,
                3 => self.concurrent_streams_max = value,
                4 if value > WINDOW_MAX => return Err(SettingsError(ErrorCode::FlowControlError)),
                4 => self.initial_window_bytes = value,
                5 if !(16_384..=16_777_215).contains(&value) => return Err(SettingsError(ErrorCode::ProtocolError)),
                5 => self.frame_bytes_max = value,
                6 => self.header_list_bytes_max = value,
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends a payload with what differs from the defaults.
    pub fn write(&self, output: &mut BytesMut) {
        let default = Settings::default();
        let all = [
            (1u16, self.header_table_bytes, default.header_table_bytes),
            (2, u32::from(self.push_enabled), u32::from(default.push_enabled)),
            (3, self.concurrent_streams_max, default.concurrent_streams_max),
            (4, self.initial_window_bytes, default.initial_window_bytes),
            (5, self.frame_bytes_max, default.frame_bytes_max),
            (6, self.header_list_bytes_max, default.header_list_bytes_max),
        ];
        for (id, value, default) in all {
            if value != default {
                output.put_u16(id);
                output.put_u32(value);
            }
        }
    }
}
