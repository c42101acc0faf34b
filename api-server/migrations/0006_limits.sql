-- What each organization may hold, and what it holds. The figures are kept by the triggers below and by nothing else,
-- so they are exact whoever changes the rows, and a check never counts rows.
--
--   projects      live ones
--   secrets       live ones of live projects
--   value_bytes   the envelopes of all versions and configurations that are stored: deleting frees them only once the
--                 trash is purged, and an envelope is some hundred bytes longer than its value
CREATE TABLE quotas (
    organization_id BLOB    PRIMARY KEY REFERENCES organizations (id) ON DELETE CASCADE,
    max_projects    INTEGER NOT NULL DEFAULT 10000,
    max_secrets     INTEGER NOT NULL DEFAULT 100000,
    max_value_bytes INTEGER NOT NULL DEFAULT 1073741824,
    projects        INTEGER NOT NULL DEFAULT 0,
    secrets         INTEGER NOT NULL DEFAULT 0,
    value_bytes     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The same for each project, so that deleting or restoring one costs as much as changing one row. `secrets` counts
-- those that are not deleted themselves, whether the project is live or not.
CREATE TABLE project_usage (
    project_id      BLOB    PRIMARY KEY,
    organization_id BLOB    NOT NULL,
    is_live         INTEGER NOT NULL CHECK (is_live IN (0, 1)),
    secrets         INTEGER NOT NULL DEFAULT 0,
    value_bytes     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

INSERT INTO project_usage (project_id, organization_id, is_live, secrets, value_bytes)
SELECT p.id, p.organization_id, p.deleted_at IS NULL,
    (SELECT count(*) FROM secrets s WHERE s.project_id = p.id AND s.deleted_at IS NULL),
    (SELECT coalesce(sum(length(v.sealed)), 0) FROM versions v JOIN secrets s ON s.id = v.secret_id
        WHERE s.project_id = p.id)
    + (SELECT coalesce(sum(length(c.sealed)), 0) FROM configurations c JOIN environments e ON e.id = c.environment_id
        WHERE e.project_id = p.id)
FROM projects p;

INSERT INTO quotas (organization_id, projects, secrets, value_bytes)
SELECT o.id, coalesce(sum(u.is_live), 0), coalesce(sum(u.is_live * u.secrets), 0), coalesce(sum(u.value_bytes), 0)
FROM organizations o LEFT JOIN project_usage u ON u.organization_id = o.id GROUP BY o.id;

-- Organizations
CREATE TRIGGER quotas_begin AFTER INSERT ON organizations
BEGIN
    INSERT INTO quotas (organization_id) VALUES (NEW.id);
END;

-- From projects to their organization
CREATE TRIGGER project_usage_begin AFTER INSERT ON project_usage
BEGIN
    UPDATE quotas SET projects = projects + NEW.is_live, secrets = secrets + NEW.is_live * NEW.secrets,
        value_bytes = value_bytes + NEW.value_bytes
    WHERE organization_id = NEW.organization_id;
END;
CREATE TRIGGER project_usage_change AFTER UPDATE ON project_usage
BEGIN
    UPDATE quotas SET projects = projects + NEW.is_live - OLD.is_live,
        secrets = secrets + NEW.is_live * NEW.secrets - OLD.is_live * OLD.secrets,
        value_bytes = value_bytes + NEW.value_bytes - OLD.value_bytes
    WHERE organization_id = NEW.organization_id;
END;
CREATE TRIGGER project_usage_end AFTER DELETE ON project_usage
BEGIN
    UPDATE quotas SET projects = projects - OLD.is_live, secrets = secrets - OLD.is_live * OLD.secrets,
        value_bytes = value_bytes - OLD.value_bytes
    WHERE organization_id = OLD.organization_id;
END;

-- Projects
CREATE TRIGGER projects_usage_begin AFTER INSERT ON projects
BEGIN
    INSERT INTO project_usage (project_id, organization_id, is_live)
    VALUES (NEW.id, NEW.organization_id, NEW.deleted_at IS NULL);
END;
CREATE TRIGGER projects_usage_change AFTER UPDATE OF deleted_at ON projects
WHEN (OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL)
BEGIN
    UPDATE project_usage SET is_live = NEW.deleted_at IS NULL WHERE project_id = NEW.id;
END;
CREATE TRIGGER projects_usage_end AFTER DELETE ON projects
BEGIN
    DELETE FROM project_usage WHERE project_id = OLD.id;
END;

-- Secrets
CREATE TRIGGER secrets_usage_begin AFTER INSERT ON secrets
WHEN NEW.deleted_at IS NULL
BEGIN
    UPDATE project_usage SET secrets = secrets + 1 WHERE project_id = NEW.project_id;
END;
CREATE TRIGGER secrets_usage_change AFTER UPDATE OF deleted_at ON secrets
WHEN (OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL)
BEGIN
    UPDATE project_usage SET secrets = secrets + (NEW.deleted_at IS NULL) - (OLD.deleted_at IS NULL)
    WHERE project_id = NEW.project_id;
END;
CREATE TRIGGER secrets_usage_end AFTER DELETE ON secrets
WHEN OLD.deleted_at IS NULL
BEGIN
    UPDATE project_usage SET secrets = secrets - 1 WHERE project_id = OLD.project_id;
END;

-- Values
CREATE TRIGGER versions_usage_begin AFTER INSERT ON versions
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes + length(NEW.sealed)
    WHERE project_id = (SELECT project_id FROM secrets WHERE id = NEW.secret_id);
END;
CREATE TRIGGER versions_usage_change AFTER UPDATE OF sealed ON versions
WHEN length(NEW.sealed) <> length(OLD.sealed)
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes + length(NEW.sealed) - length(OLD.sealed)
    WHERE project_id = (SELECT project_id FROM secrets WHERE id = NEW.secret_id);
END;
CREATE TRIGGER versions_usage_end AFTER DELETE ON versions
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes - length(OLD.sealed)
    WHERE project_id = (SELECT project_id FROM secrets WHERE id = OLD.secret_id);
END;
CREATE TRIGGER configurations_usage_begin AFTER INSERT ON configurations
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes + length(NEW.sealed)
    WHERE project_id = (SELECT project_id FROM environments WHERE id = NEW.environment_id);
END;
CREATE TRIGGER configurations_usage_change AFTER UPDATE OF sealed ON configurations
WHEN length(NEW.sealed) <> length(OLD.sealed)
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes + length(NEW.sealed) - length(OLD.sealed)
    WHERE project_id = (SELECT project_id FROM environments WHERE id = NEW.environment_id);
END;
CREATE TRIGGER configurations_usage_end AFTER DELETE ON configurations
BEGIN
    UPDATE project_usage SET value_bytes = value_bytes - length(OLD.sealed)
    WHERE project_id = (SELECT project_id FROM environments WHERE id = OLD.environment_id);
END;

-- The one place where a quota is enforced: whatever makes a figure grow beyond its limit does not happen, on either
-- plane, also when something comes back from the trash. What holds more already, because its limit was lowered, keeps
-- it. The texts are read by store/sqlite/quotas.rs.
CREATE TRIGGER quotas_enforce BEFORE UPDATE OF projects, secrets, value_bytes ON quotas
BEGIN
    SELECT raise(ABORT, 'over quota: projects ' || NEW.max_projects)
    WHERE NEW.projects > OLD.projects AND NEW.projects > NEW.max_projects;
    SELECT raise(ABORT, 'over quota: secrets ' || NEW.max_secrets)
    WHERE NEW.secrets > OLD.secrets AND NEW.secrets > NEW.max_secrets;
    SELECT raise(ABORT, 'over quota: value_bytes ' || NEW.max_value_bytes)
    WHERE NEW.value_bytes > OLD.value_bytes AND NEW.value_bytes > NEW.max_value_bytes;
END;
