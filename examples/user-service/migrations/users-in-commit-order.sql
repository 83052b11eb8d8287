-- See service-kit's commit_order. Older rows are numbered by their ids, which is how they were listed.
ALTER TABLE users ADD COLUMN commit_number BIGINT;

UPDATE users SET commit_number = numbered.number
FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS number FROM users) AS numbered
WHERE numbered.id = users.id;

INSERT INTO commit_numbers (table_name, last_number) SELECT 'users', COUNT(*) FROM users;

CREATE UNIQUE INDEX users_by_commit ON users (commit_number);
