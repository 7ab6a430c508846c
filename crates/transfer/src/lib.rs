//! Files and folders over an authenticated stream: fast, verified, resumable, confined (SEP §7).
