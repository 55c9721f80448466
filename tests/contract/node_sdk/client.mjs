// A small client that makes exactly the calls of the table in contract part F, for Node.
// The package itself cannot be installed; paths marked as inferred there are those of part E.

class AmbaError extends Error {
  constructor(status, body) {
    super(`${status} ${body?.error?.code}: ${body?.error?.message}`);
    this.status = status;
    this.code = body?.error?.code;
  }
}

export class AmbaClient {
  #apiKey;
  #baseUrl;
  #session = null;
  #refresh = null;
  #user = null;

  static async configure({ apiKey, baseUrl = "https://api.amba.dev" }) {
    const client = new AmbaClient();
    client.#apiKey = apiKey;
    client.#baseUrl = baseUrl;
    return client;
  }

  // ours: contract H-9 says that the wire form is unknown
  asUser(uid) {
    const scoped = new AmbaClient();
    scoped.#apiKey = this.#apiKey;
    scoped.#baseUrl = this.#baseUrl;
    scoped.#user = uid;
    return scoped;
  }

  async #call(method, path, body, { again = true } = {}) {
    const headers = { "x-api-key": this.#apiKey };
    if (this.#session) headers.authorization = `Bearer ${this.#session}`;
    if (this.#user !== null) headers["x-amba-as-user"] = this.#user;
    if (body !== undefined) headers["content-type"] = "application/json";
    const answer = await fetch(`${this.#baseUrl}/v1/client${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    const parsed = text ? JSON.parse(text) : null;
    if (answer.status === 401 && again && this.#refresh) {
      await this.auth.refresh();
      return this.#call(method, path, body, { again: false });
    }
    if (!answer.ok) throw new AmbaError(answer.status, parsed);
    return parsed;
  }

  auth = {
    signInAnonymously: async () => {
      const { data } = await this.#call("POST", "/auth/anonymous", {});
      this.#session = data.session_token;
      this.#refresh = data.refresh_token;
      return data.user;
    },
    refresh: async () => {
      const token = this.#refresh;
      this.#refresh = null;
      const { data } = await this.#call("POST", "/auth/refresh", { refresh_token: token });
      this.#session = data.session_token;
      this.#refresh = data.refresh_token;
    },
    // for tests: what is left when a session has run out
    forgetSession: () => {
      this.#session = "gone";
    },
  };

  collections = {
    find: async (name, query = {}) => {
      const { data, next_cursor, has_more } = await this.#call(
        "GET",
        `/collections/${name}?query=${encodeURIComponent(JSON.stringify(query))}`,
      );
      return { data, next_cursor, has_more };
    },
    findOne: async (name, id) => {
      try {
        return (await this.#call("GET", `/collections/${name}/${id}`)).data;
      } catch (error) {
        if (error.status === 404) return null;
        throw error;
      }
    },
    insert: async (name, row) => (await this.#call("POST", `/collections/${name}`, row)).data,
    update: async (name, id, set) =>
      (await this.#call("PATCH", `/collections/${name}/${id}`, { set })).data,
    delete: async (name, id) => (await this.#call("DELETE", `/collections/${name}/${id}`)).data,
    where: {
      eq: (column, value) => ({ column, op: "eq", value }),
      ne: (column, value) => ({ column, op: "ne", value }),
      gt: (column, value) => ({ column, op: "gt", value }),
      gte: (column, value) => ({ column, op: "gte", value }),
      lt: (column, value) => ({ column, op: "lt", value }),
      lte: (column, value) => ({ column, op: "lte", value }),
      in: (column, value) => ({ column, op: "in", value }),
      notIn: (column, value) => ({ column, op: "not_in", value }),
      like: (column, value) => ({ column, op: "like", value }),
      ilike: (column, value) => ({ column, op: "ilike", value }),
      isNull: (column) => ({ column, op: "is_null" }),
      isNotNull: (column) => ({ column, op: "is_not_null" }),
      and: (...parts) => ({ and: parts }),
      or: (...parts) => ({ or: parts }),
      not: (part) => ({ not: part }),
    },
  };

  events = {
    track: async (event, properties) =>
      (await this.#call("POST", "/events", { event, properties })).data,
  };

  storage = {
    presign: async ({ bucket, filename, mimeType, sizeBytes, retentionDays }) =>
      (
        await this.#call("POST", "/storage/presign", {
          bucket,
          filename,
          mime_type: mimeType,
          size_bytes: sizeBytes,
          retention_days: retentionDays,
        })
      ).data,
    commit: async (upload_id, asset_id) =>
      (await this.#call("POST", "/storage/commit", { upload_id, asset_id })).data,
  };

  push = {
    register: async (token, provider, bundle_id) =>
      (
        await this.#call("POST", "/users/me/push-token", {
          token,
          platform: provider === "apns" ? "ios" : "android",
          provider,
          bundle_id,
        })
      ).data,
  };

  ai = {
    anthropic: {
      messages: { create: async (body) => this.#call("POST", "/ai/anthropic/messages", body) },
    },
  };

  middleware() {
    return (req, _res, next) => {
      req.amba = this;
      next();
    };
  }
}
