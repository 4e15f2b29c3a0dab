CREATE TABLE `accounts` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`sip_uri` text NOT NULL,
	`address_key` text NOT NULL,
	`username` text NOT NULL,
	`domain` text NOT NULL,
	`email` text,
	`display_name` text,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `accounts_address_key_unique` ON `accounts` (`address_key`);--> statement-breakpoint
CREATE TABLE `api_keys` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`account_id` integer,
	`name` text NOT NULL,
	`role` text NOT NULL,
	`sha256` text NOT NULL,
	`created_at_ms` integer NOT NULL,
	`expires_at_ms` integer,
	`last_used_at_ms` integer,
	FOREIGN KEY (`account_id`) REFERENCES `accounts`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE UNIQUE INDEX `api_keys_sha256_unique` ON `api_keys` (`sha256`);--> statement-breakpoint
CREATE INDEX `api_keys_by_account` ON `api_keys` (`account_id`);--> statement-breakpoint
CREATE TABLE `removals` (
	`file_name` text PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE `voicemails` (
	`id` text PRIMARY KEY NOT NULL,
	`account_id` integer NOT NULL,
	`sip_from` text NOT NULL,
	`content_type` text NOT NULL,
	`max_upload_bytes` integer NOT NULL,
	`created_at_ms` integer NOT NULL,
	`expires_at_ms` integer NOT NULL,
	`uploaded_at_ms` integer,
	`read_at_ms` integer,
	`file_name` text,
	`file_bytes` integer,
	`duration_ms` integer,
	`sha256` text,
	`failure_code` text,
	`failure_detail` text,
	`failure_at_ms` integer,
	FOREIGN KEY (`account_id`) REFERENCES `accounts`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `voicemails_file_name_unique` ON `voicemails` (`file_name`);--> statement-breakpoint
CREATE INDEX `voicemails_by_account` ON `voicemails` (`account_id`,`id`);--> statement-breakpoint
CREATE INDEX `voicemails_unread` ON `voicemails` (`account_id`) WHERE uploaded_at_ms is not null and read_at_ms is null;--> statement-breakpoint
CREATE INDEX `voicemails_pending` ON `voicemails` (`account_id`,`expires_at_ms`) WHERE uploaded_at_ms is null;