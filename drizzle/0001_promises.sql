CREATE TABLE `events` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`voicemail_id` text NOT NULL,
	`account_id` integer NOT NULL,
	`kind` text NOT NULL,
	`caller` text NOT NULL,
	`address` text,
	`at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `events_by_voicemail` ON `events` (`voicemail_id`,`id`);--> statement-breakpoint
CREATE INDEX `events_of_deletions` ON `events` (`at_ms`) WHERE kind = 'deleted';--> statement-breakpoint
ALTER TABLE `accounts` ADD `quota_bytes` integer;--> statement-breakpoint
ALTER TABLE `accounts` ADD `quota_messages` integer;--> statement-breakpoint
ALTER TABLE `accounts` ADD `stored_bytes` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `accounts` ADD `stored_messages` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `accounts` ADD `unread_messages` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
CREATE INDEX `voicemails_expiring` ON `voicemails` (`expires_at_ms`) WHERE uploaded_at_ms is null;--> statement-breakpoint
CREATE INDEX `voicemails_by_age` ON `voicemails` (`uploaded_at_ms`) WHERE uploaded_at_ms is not null;--> statement-breakpoint
CREATE INDEX `voicemails_by_reading` ON `voicemails` (`read_at_ms`) WHERE read_at_ms is not null;--> statement-breakpoint
UPDATE `accounts` SET
	`stored_bytes` = (SELECT coalesce(sum(`file_bytes`), 0) FROM `voicemails` WHERE `account_id` = `accounts`.`id` AND `uploaded_at_ms` IS NOT NULL),
	`stored_messages` = (SELECT count(*) FROM `voicemails` WHERE `account_id` = `accounts`.`id` AND `uploaded_at_ms` IS NOT NULL),
	`unread_messages` = (SELECT count(*) FROM `voicemails` WHERE `account_id` = `accounts`.`id` AND `uploaded_at_ms` IS NOT NULL AND `read_at_ms` IS NULL);
--> statement-breakpoint
CREATE TRIGGER `voicemails_stored` AFTER UPDATE OF `uploaded_at_ms`, `read_at_ms` ON `voicemails` BEGIN
	UPDATE `accounts` SET
		`stored_bytes` = `stored_bytes` + coalesce(new.`file_bytes`, 0) * (new.`uploaded_at_ms` IS NOT NULL) - coalesce(old.`file_bytes`, 0) * (old.`uploaded_at_ms` IS NOT NULL),
		`stored_messages` = `stored_messages` + (new.`uploaded_at_ms` IS NOT NULL) - (old.`uploaded_at_ms` IS NOT NULL),
		`unread_messages` = `unread_messages` + (new.`uploaded_at_ms` IS NOT NULL AND new.`read_at_ms` IS NULL) - (old.`uploaded_at_ms` IS NOT NULL AND old.`read_at_ms` IS NULL)
	WHERE `id` = new.`account_id`;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_removed` AFTER DELETE ON `voicemails` WHEN old.`uploaded_at_ms` IS NOT NULL BEGIN
	UPDATE `accounts` SET
		`stored_bytes` = `stored_bytes` - coalesce(old.`file_bytes`, 0),
		`stored_messages` = `stored_messages` - 1,
		`unread_messages` = `unread_messages` - (old.`read_at_ms` IS NULL)
	WHERE `id` = old.`account_id`;
END;
--> statement-breakpoint
CREATE TRIGGER `voicemails_added` AFTER INSERT ON `voicemails` WHEN new.`uploaded_at_ms` IS NOT NULL BEGIN
	UPDATE `accounts` SET
		`stored_bytes` = `stored_bytes` + coalesce(new.`file_bytes`, 0),
		`stored_messages` = `stored_messages` + 1,
		`unread_messages` = `unread_messages` + (new.`read_at_ms` IS NULL)
	WHERE `id` = new.`account_id`;
END;
