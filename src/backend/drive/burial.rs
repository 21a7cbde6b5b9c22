//! A database file that another has taken the name of: its versions live on in whoever holds them. When the last of those
//! has let go it is this thread, not home, that unmaps the file and gives its blocks back, a piece at a time: the
//! filesystem takes tens of milliseconds for a large one, and the device has to hear of every block.

use std::{rc::Rc, time::Duration};

use super::volume::Volume;
use crate::host::{File, Host};

/// Between two looks at whether somebody still holds a version. It is a matter of seconds at most, but for a snapshot under
/// way.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes given back at once, and the rest after them.
const PIECE_BYTES: u64 = 8 << 20;
const PIECE_REST: Duration = Duration::from_millis(5);

/// Waits until nobody reads the volume's file any more and gives its blocks back. Its name must be gone durably: what a
/// restart opens would be cut short.
pub(super) async fn bury<H: Host>(host: H, mut volume: Volume<H>) {
    let pause = |duration| host.sleep_until(host.now() + duration);
    while volume.is_held() {
        pause(LOOK_INTERVAL).await;
    }
    let mut size = volume.file_size();
    let file = Rc::clone(&volume.file);
    drop(volume);
    // A stream of a snapshot may have the file without a version, when it is about to end.
    let Ok(file) = Rc::try_unwrap(file) else { return };
    while size > 0 {
        size = size.saturating_sub(PIECE_BYTES);
        // The rest goes at once when the file is closed.
        if file.truncate(size).await.is_err() {
            return;
        }
        pause(PIECE_REST).await;
    }
}
