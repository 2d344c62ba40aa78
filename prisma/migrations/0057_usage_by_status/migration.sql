-- Totals know how calls ended, so that they can be filtered as the log can. What was counted before is not known that far.
ALTER TABLE "usage_daily" ADD COLUMN "status" TEXT NOT NULL DEFAULT 'unknown';
DROP INDEX "usage_daily_org_id_day_service_slug_tool_user_id_key";
CREATE UNIQUE INDEX "usage_daily_org_id_day_service_slug_tool_user_id_status_key"
  ON "usage_daily"("org_id", "day", "service_slug", "tool", "user_id", "status");
