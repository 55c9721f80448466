// Shows: a bundle of the 0.1.x generation, whose wrapper asks env and the API what that SDK asks. GET / answers 200.
// The wrapper is our own (contract B.1). POST /story tells a whole story, POST /sql passes a
// statement on; all else says who called.

// not looked up anywhere: the binding answers, whatever the host
const DATABASE = "edge-db-proxy";

const HEADERS = {
  projectId: "X-Amba-Project-Id",
  userId: "X-Amba-User-Id",
  developerId: "X-Amba-Developer-Id",
  requestId: "X-Amba-Request-Id",
  functionName: "X-Amba-Function-Name",
  timestamp: "X-Amba-Edge-Timestamp",
  signature: "X-Amba-Edge-Signature",
};

class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function verified(request, secret) {
  const found = {};
  for (const [name, header] of Object.entries(HEADERS)) {
    const value = request.headers.get(header);
    if (value === null) throw new Refusal(401, "invalid_token", `${header} is missing`);
    found[name] = value;
  }
  if (Math.abs(Math.floor(Date.now() / 1000) - Number(found.timestamp)) > 60) {
    throw new Refusal(401, "invalid_token", "the stamp is too old");
  }
  const { projectId, userId, developerId, requestId, functionName, timestamp } = found;
  const lines = ["v1", projectId, userId, developerId, requestId, functionName, timestamp];
  const bytes = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes.encode(secret), algorithm, false, ["verify"]);
  const signature = Uint8Array.from(found.signature.match(/../g), (pair) => parseInt(pair, 16));
  const good = await crypto.subtle.verify("HMAC", key, signature, bytes.encode(lines.join("\n")));
  if (!good) throw new Refusal(401, "invalid_token", "the signature does not hold");
  return found;
}

const named = (name) => `"${name.replaceAll('"', '""')}"`;
const SIGNS = { eq: "=", ne: "<>", gt: ">", gte: ">=", lt: "<", lte: "<=", like: "LIKE", ilike: "ILIKE" };

function whole(where, bind) {
  return Object.entries(where).map(([name, value]) => {
    if (name === "not") return `NOT (${whole(value, bind)})`;
    if (name === "and" || name === "or") {
      return `(${value.map((part) => whole(part, bind)).join(` ${name.toUpperCase()} `)})`;
    }
    const column = named(name);
    if (value === null) return `${column} IS NULL`;
    if (typeof value !== "object") return `${column} = ${bind(value)}`;
    const [[operator, operand]] = Object.entries(value);
    if (operator === "in") return `${column} = ANY(${bind(operand)})`;
    if (operator === "notIn") return `NOT (${column} = ANY(${bind(operand)}))`;
    if (operator === "isNull") return `${column} IS NULL`;
    if (operator === "isNotNull") return `${column} IS NOT NULL`;
    return `${column} ${SIGNS[operator]} ${bind(operand)}`;
  }).join(" AND ");
}

class Rows {
  constructor(name, query, userId = null) {
    this.table = named(`coll_${name}`);
    this.name = name;
    this.query = query;
    this.userId = userId;
  }

  asUser(userId) {
    return new Rows(this.name, this.query, userId);
  }

  where(options, bind) {
    const parts = options.includeDeleted ? [] : ["deleted_at IS NULL"];
    if (this.userId !== null) parts.push(`"user_id" = ${bind(this.userId)}`);
    const rest = whole(options.where ?? {}, bind);
    if (rest !== "") parts.push(rest);
    return parts.length === 0 ? "" : `WHERE ${parts.join(" AND ")}`;
  }

  some(options, bind) {
    if (!options.limit) return "";
    const mine = this.userId === null ? "" : 'WHERE "user_id" = $1';
    return `AND "id" IN (SELECT "id" FROM ${this.table} ${mine} LIMIT ${bind(options.limit)})`;
  }

  async run(make) {
    const params = [];
    return this.query(make((value) => `$${params.push(value)}`), params);
  }

  async create(row) {
    const given = this.userId === null ? row : { ...row, user_id: this.userId };
    const [made] = await this.run((bind) => {
      const names = Object.keys(given).map(named).join(", ");
      const values = Object.values(given).map(bind).join(", ");
      return `INSERT INTO ${this.table} (${names}) VALUES (${values}) RETURNING *`;
    });
    return made;
  }

  find(options = {}) {
    return this.run((bind) => {
      const outputs = options.select?.map(named).join(", ") ?? "*";
      const where = this.where(options, bind);
      const order = [options.order ?? []].flat().map((entry) => {
        const [name, direction = "asc"] = entry.split(" ");
        return `${named(name)} ${direction.toUpperCase()}`;
      });
      const by = order.length === 0 ? "" : `ORDER BY ${order.join(", ")}`;
      const limit = `LIMIT ${bind(options.limit ?? 50)}`;
      const offset = options.offset ? ` OFFSET ${bind(options.offset)}` : "";
      return `SELECT ${outputs} FROM ${this.table} ${where} ${by} ${limit}${offset}`;
    });
  }

  async count(options = {}) {
    const [row] = await this.run((bind) => {
      return `SELECT COUNT(*)::int AS count FROM ${this.table} ${this.where(options, bind)}`;
    });
    return row.count;
  }

  update(options) {
    return this.run((bind) => {
      const sets = Object.entries(options.set).map(([name, value]) => `${named(name)} = ${bind(value)}`);
      const where = this.where(options, bind);
      const rest = `${where} ${this.some(options, bind)} RETURNING *`;
      return `UPDATE ${this.table} SET ${sets.join(", ")}, updated_at = NOW() ${rest}`;
    });
  }

  async delete(options) {
    const gone = await this.run((bind) => {
      const rest = `${this.where(options, bind)} ${this.some(options, bind)} RETURNING "id"`;
      return `UPDATE ${this.table} SET deleted_at = NOW(), updated_at = NOW() ${rest}`;
    });
    return gone.length;
  }
}

function contextOf(env, caller) {
  const query = async (sql, params) => {
    const answer = await env.EDGE_DB_PROXY.fetch(`https://${DATABASE}/query`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${env.AMBA_INTERNAL_TOKEN}`,
        "x-amba-project-id": env.AMBA_PROJECT_ID,
      },
      body: JSON.stringify({ sql, params }),
    });
    if (!answer.ok) {
      const { error } = await answer.json();
      throw new Refusal(answer.status, error.code, error.message);
    }
    return (await answer.json()).rows;
  };
  const call = async (path, body) => {
    // no /v1: this generation has none
    const answer = await fetch(`${env.AMBA_API_URL.replace(/\/+$/, "")}${path}`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${env.AMBA_INTERNAL_TOKEN}`,
        "x-amba-project-id": caller.projectId,
        "x-amba-request-id": caller.requestId,
      },
      body: JSON.stringify(body),
    });
    const reply = await answer.json();
    if (!answer.ok) throw new Refusal(answer.status, reply.error.code, reply.error.message);
    return reply;
  };
  const project = `/admin/projects/${encodeURIComponent(caller.projectId)}`;
  return {
    userId: caller.userId || null,
    developerId: caller.developerId || null,
    projectId: caller.projectId,
    functionName: caller.functionName,
    query,
    collections: new Proxy({}, { get: (_, name) => new Rows(name, query) }),
    async track(name, properties, userId) {
      const path = caller.developerId ? `${project}/events` : "/client/events";
      await call(path, { event: name, user_id: userId, properties, occurred_at: undefined });
    },
    async upload(bucket, key, body, type) {
      await env.STORAGE.put(`${bucket}/${key}`, body, { httpMetadata: { contentType: type } });
      const tracked = await call(`${project}/media/track`, { bucket, key, content_type: type });
      const url = tracked.url ?? `https://${env.AMBA_CDN_HOST}/${bucket}/${key}`;
      return { id: tracked.id, url };
    },
    presign: (bucket, key) => call(`${project}/media/presign`, { bucket, key, method: "GET" }),
    // as it comes: this generation looks for `id` at the top of the answer
    email: async (input) => (await call("/admin/internal/email/send", input)).id,
  };
}

function defineFunction(handler) {
  return {
    async fetch(request, env) {
      try {
        const caller = await verified(request, env.EDGE_HEADER_SIGNING_SECRET);
        return await handler(request, contextOf(env, caller));
      } catch (error) {
        const { status = 500, code = "unhandled_exception", message } = error;
        return Response.json({ error: { code, status, message } }, { status });
      }
    },
  };
}

async function story(ctx) {
  const { letters } = ctx.collections;
  const mine = letters.asUser(ctx.userId);
  const told = {};
  told.created = await mine.create({ title: "Hello", score: 1, tags: ["a"], meta: { n: 1 } });
  await mine.create({ title: "hello again", score: 2 });
  await letters.create({ title: "of another", score: 3, user_id: "somebody" });
  const titles = async (rows, options) => (await rows.find(options)).map((row) => row.title);
  told.all = await titles(letters, { order: "score desc" });
  told.mine = await titles(mine, { order: ["score asc"], select: ["title"] });
  told.page = await titles(letters, { order: "score", limit: 1, offset: 1 });
  told.like = await titles(letters, { where: { title: { like: "hello%" } } });
  told.ilike = await titles(letters, { where: { title: { ilike: "hello%" } }, order: "score" });
  told.nested = await titles(letters, {
    where: { or: [{ score: { gt: 2 } }, { and: [{ title: "Hello" }, { not: { score: 2 } }] }] },
    order: "score",
  });
  told.in = await letters.count({ where: { score: { in: [1, 3, 99] } } });
  told.notIn = await letters.count({ where: { score: { notIn: [1] }, tags: null } });
  told.updated = (await mine.update({ where: { score: { lte: 1 } }, set: { title: "Changed" } }))
    .map((row) => row.title);
  told.some = (await letters.update({ where: {}, set: { score: 9 }, limit: 2 })).length;
  told.deleted = await mine.delete({ where: { title: { eq: "Changed" } } });
  told.left = await letters.count();
  told.everything = await letters.count({ includeDeleted: true });
  await ctx.track("story_told", { left: told.left }, ctx.developerId ? ctx.userId : undefined);
  told.upload = await ctx.upload("avatars", "me.txt", "a picture", "text/plain");
  told.presigned = typeof (await ctx.presign("avatars", "me.txt")).url;
  told.email = await ctx.email({ to: { email: "a@example.com" }, subject: "Told", text: "All." });
  return told;
}

export default defineFunction(async (request, ctx) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/story") return Response.json(await story(ctx));
  if (pathname === "/sql") {
    const { sql, params = [] } = await request.json();
    return Response.json(await ctx.query(sql, params));
  }
  const { userId, developerId, projectId, functionName } = ctx;
  return Response.json({ userId, developerId, projectId, functionName });
});
