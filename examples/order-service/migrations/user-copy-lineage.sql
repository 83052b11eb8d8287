-- Whose changes are in the copy: user-service's database, and the mark of the last change; see its lineage.
ALTER TABLE user_copy_state ADD COLUMN database_id TEXT;
ALTER TABLE user_copy_state ADD COLUMN mark TEXT;

-- Whether the queue has taken events since the last reason to distrust the copy.
ALTER TABLE user_copy_state ADD COLUMN bound BIGINT NOT NULL DEFAULT 0;

-- Which list had the user last, and in which epoch an event did: who is in neither when a list has been read is gone.
ALTER TABLE user_copies ADD COLUMN list BIGINT NOT NULL DEFAULT 0;
ALTER TABLE user_copies ADD COLUMN epoch BIGINT NOT NULL DEFAULT -1;

-- Nobody knows whose changes an older copy has.
UPDATE user_copy_state SET synced = 0, epoch = epoch + 1;
