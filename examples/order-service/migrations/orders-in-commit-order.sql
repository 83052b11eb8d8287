-- See service-kit's commit_order. Older rows are numbered by their ids, which is how they were listed.
ALTER TABLE orders ADD COLUMN commit_number BIGINT;

UPDATE orders SET commit_number = numbered.number
FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS number FROM orders) AS numbered
WHERE numbered.id = orders.id;

INSERT INTO commit_numbers (table_name, last_number) SELECT 'orders', COUNT(*) FROM orders;

CREATE UNIQUE INDEX orders_by_commit ON orders (commit_number);

DROP INDEX orders_by_status;
CREATE INDEX orders_by_status ON orders (status, commit_number);
