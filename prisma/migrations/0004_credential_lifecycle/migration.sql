-- Mail that waits to be sent: written in the transaction of the verb that sends it, so that neither is without the other.
-- Address, subject and text are sealed in the vault, since mail carries one-time tokens.
CREATE TABLE "mail_outbox" (
  "id" UUID NOT NULL,
  "sender_id" UUID,
  "sealed" TEXT NOT NULL,
  "attempts" INTEGER NOT NULL DEFAULT 0,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "next_attempt_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "mail_outbox_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "mail_outbox_next_attempt_at_idx" ON "mail_outbox"("next_attempt_at");

-- The refresh tokens of a session are one line: each has one successor, sealed under the token that it follows.
CREATE TABLE "refresh_tokens" (
  "token_hash" TEXT NOT NULL,
  "session_id" UUID NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "rotated_at" TIMESTAMPTZ(3),
  "successor" TEXT,
  CONSTRAINT "refresh_tokens_pkey" PRIMARY KEY ("token_hash"),
  CONSTRAINT "refresh_tokens_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "refresh_tokens_session_id_idx" ON "refresh_tokens"("session_id");

ALTER TABLE "sessions" ADD COLUMN "last_used_at" TIMESTAMPTZ(3);

-- Accounts that are older than verification count as verified.
ALTER TABLE "users" ADD COLUMN "email_verified_at" TIMESTAMPTZ(3);
UPDATE "users" SET "email_verified_at" = "created_at";

-- Single-use tokens sent by mail, stored hashed. A row without a user is the decoy of a request for an unknown address.
CREATE TABLE "one_time_tokens" (
  "token_hash" TEXT NOT NULL,
  "user_id" UUID,
  "purpose" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "one_time_tokens_pkey" PRIMARY KEY ("token_hash"),
  CONSTRAINT "one_time_tokens_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "one_time_tokens_user_id_created_at_idx" ON "one_time_tokens"("user_id", "created_at");
CREATE INDEX "one_time_tokens_expires_at_idx" ON "one_time_tokens"("expires_at");

CREATE TABLE "invitations" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "email" TEXT NOT NULL,
  "role" "Role" NOT NULL,
  "token_hash" TEXT NOT NULL,
  "invited_by" UUID NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "accepted_at" TIMESTAMPTZ(3),
  "revoked_at" TIMESTAMPTZ(3),
  CONSTRAINT "invitations_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "invitations_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "invitations_token_hash_key" ON "invitations"("token_hash");
CREATE INDEX "invitations_org_id_email_idx" ON "invitations"("org_id", "email");
-- At most one open invitation of an address to an organisation.
CREATE UNIQUE INDEX "invitations_open" ON "invitations"("org_id", "email") WHERE "accepted_at" IS NULL AND "revoked_at" IS NULL;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['mail_outbox', 'refresh_tokens', 'one_time_tokens', 'invitations'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner_all ON %I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
    EXECUTE format('CREATE POLICY system_all ON %I TO mcp_system USING (true) WITH CHECK (true)', name);
  END LOOP;
END
$$;

-- mail_outbox: a member's verb can put mail in; nobody but the platform takes it out
GRANT INSERT ON mail_outbox TO mcp_app;
CREATE POLICY post ON mail_outbox FOR INSERT TO mcp_app WITH CHECK (sender_id = (SELECT auth.uid()));
GRANT SELECT, INSERT, UPDATE (attempts, next_attempt_at), DELETE ON mail_outbox TO mcp_system;

-- refresh_tokens, one_time_tokens: the platform's alone
GRANT SELECT, INSERT, UPDATE (rotated_at, successor), DELETE ON refresh_tokens TO mcp_system;
GRANT SELECT, INSERT, UPDATE (used_at), DELETE ON one_time_tokens TO mcp_system;

-- invitations: administrators' alone, and the token's hash is not theirs to read
GRANT SELECT (id, org_id, email, role, invited_by, created_at, expires_at, accepted_at, revoked_at), INSERT,
  UPDATE (revoked_at) ON invitations TO mcp_app;
CREATE POLICY administer ON invitations TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:admin')))
  WITH CHECK (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:admin')));
GRANT SELECT, UPDATE (accepted_at, revoked_at), DELETE ON invitations TO mcp_system;

-- sessions: a person sees and ends all sessions of their account, whichever organisation each acts in
DROP POLICY read_own ON sessions;
DROP POLICY end_own ON sessions;
CREATE POLICY read_own ON sessions FOR SELECT TO mcp_app USING (user_id = (SELECT auth.uid()));
CREATE POLICY end_own ON sessions FOR UPDATE TO mcp_app
  USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));

-- A changed password ends every other session. The old hash is part of the condition, so that of two changes at the same
-- moment one fails, and no caller can set a password without one that was checked.
CREATE FUNCTION app.change_own_password(old_hash text, new_hash text, kept_session uuid, at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
  UPDATE public.users SET password_hash = new_hash WHERE id = auth.uid() AND password_hash = old_hash;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE public.sessions SET revoked_at = at WHERE user_id = auth.uid() AND id <> kept_session AND revoked_at IS NULL;
  RETURN true;
END
$$;

-- Ends a member's sessions in the caller's organisation; and, when they leave it, forgets the credentials they held there.
CREATE FUNCTION app.end_member_credentials(member uuid, leaves boolean, at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
  UPDATE public.sessions SET revoked_at = at
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND revoked_at IS NULL;
  UPDATE public.api_keys SET revoked_at = at
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND revoked_at IS NULL;
  DELETE FROM public.user_tokens
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin');
$$;

REVOKE EXECUTE ON FUNCTION app.change_own_password(text, text, uuid, timestamptz),
  app.end_member_credentials(uuid, boolean, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.change_own_password(text, text, uuid, timestamptz),
  app.end_member_credentials(uuid, boolean, timestamptz) TO mcp_app;
