CREATE TABLE `totals` (
	`id` integer PRIMARY KEY NOT NULL,
	`pending_bytes` integer DEFAULT 0 NOT NULL,
	`pending_messages` integer DEFAULT 0 NOT NULL
);
--> statement-breakpoint
DROP INDEX `voicemails_unread`;--> statement-breakpoint
DROP INDEX `voicemails_pending`;--> statement-breakpoint
CREATE INDEX `voicemails_read` ON `voicemails` (`account_id`,`id`) WHERE uploaded_at_ms is not null and read_at_ms is not null;--> statement-breakpoint
CREATE INDEX `voicemails_unread` ON `voicemails` (`account_id`,`id`) WHERE uploaded_at_ms is not null and read_at_ms is null;--> statement-breakpoint
CREATE INDEX `voicemails_pending` ON `voicemails` (`account_id`,`id`) WHERE uploaded_at_ms is null;--> statement-breakpoint
ALTER TABLE `accounts` ADD `pending_bytes` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `accounts` ADD `pending_messages` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `accounts` ADD `revision` integer DEFAULT 0 NOT NULL;
--> statement-breakpoint
DROP TRIGGER `voicemails_stored`;
--> statement-breakpoint
INSERT INTO `totals` SELECT 1, coalesce(sum(`max_upload_bytes`), 0), count(*) FROM `voicemails` WHERE `uploaded_at_ms` IS NULL;
--> statement-breakpoint
UPDATE `accounts` SET
	`pending_bytes` = (SELECT coalesce(sum(`max_upload_bytes`), 0) FROM `voicemails` WHERE `account_id` = `accounts`.`id` AND `uploaded_at_ms` IS NULL),
	`pending_messages` = (SELECT count(*) FROM `voicemails` WHERE `account_id` = `accounts`.`id` AND `uploaded_at_ms` IS NULL);
--> statement-breakpoint
CREATE TRIGGER `slots_opened` AFTER INSERT ON `voicemails` WHEN new.`uploaded_at_ms` IS NULL BEGIN
	UPDATE `accounts` SET `pending_bytes` = `pending_bytes` + new.`max_upload_bytes`, `pending_messages` = `pending_messages` + 1 WHERE `id` = new.`account_id`;
	UPDATE `totals` SET `pending_bytes` = `pending_bytes` + new.`max_upload_bytes`, `pending_messages` = `pending_messages` + 1;
END;
--> statement-breakpoint
CREATE TRIGGER `slots_filled` AFTER UPDATE OF `uploaded_at_ms` ON `voicemails` WHEN old.`uploaded_at_ms` IS NULL AND new.`uploaded_at_ms` IS NOT NULL BEGIN
	UPDATE `accounts` SET
		`stored_bytes` = `stored_bytes` + coalesce(new.`file_bytes`, 0),
		`stored_messages` = `stored_messages` + 1,
		`unread_messages` = `unread_messages` + (new.`read_at_ms` IS NULL),
		`pending_bytes` = `pending_bytes` - old.`max_upload_bytes`,
		`pending_messages` = `pending_messages` - 1
	WHERE `id` = new.`account_id`;
	UPDATE `totals` SET `pending_bytes` = `pending_bytes` - old.`max_upload_bytes`, `pending_messages` = `pending_messages` - 1;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_marked` AFTER UPDATE OF `read_at_ms` ON `voicemails` WHEN old.`uploaded_at_ms` IS NOT NULL AND (old.`read_at_ms` IS NULL) <> (new.`read_at_ms` IS NULL) BEGIN
	UPDATE `accounts` SET `unread_messages` = `unread_messages` + (new.`read_at_ms` IS NULL) - (old.`read_at_ms` IS NULL) WHERE `id` = new.`account_id`;
END;
--> statement-breakpoint
CREATE TRIGGER `slots_removed` AFTER DELETE ON `voicemails` WHEN old.`uploaded_at_ms` IS NULL BEGIN
	UPDATE `accounts` SET `pending_bytes` = `pending_bytes` - old.`max_upload_bytes`, `pending_messages` = `pending_messages` - 1 WHERE `id` = old.`account_id`;
	UPDATE `totals` SET `pending_bytes` = `pending_bytes` - old.`max_upload_bytes`, `pending_messages` = `pending_messages` - 1;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_revised_by_insert` AFTER INSERT ON `voicemails` BEGIN
	UPDATE `accounts` SET `revision` = `revision` + 1 WHERE `id` = new.`account_id`;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_revised_by_update` AFTER UPDATE ON `voicemails` BEGIN
	UPDATE `accounts` SET `revision` = `revision` + 1 WHERE `id` = new.`account_id`;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_revised_by_delete` AFTER DELETE ON `voicemails` BEGIN
	UPDATE `accounts` SET `revision` = `revision` + 1 WHERE `id` = old.`account_id`;
END;
