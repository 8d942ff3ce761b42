-- A prefix's grants that were removed and made again are told from the earlier ones.
ALTER TABLE "grants" ADD COLUMN incarnation INTEGER NOT NULL DEFAULT 0;
