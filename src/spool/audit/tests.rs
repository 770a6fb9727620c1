//! What the audit concludes from chunks.
