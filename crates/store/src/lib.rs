//! The home folder, the embedded database and atomic files (floor 0).
