// What a function can do with STORAGE, said from inside one. Contract C, E.7, H-30.
// GET /cases lists the cases; GET /run?case=NAME runs one under a key prefix of its own.

class Failed extends Error {}

function same(actual, expected, what = "value") {
  const a = JSON.stringify(actual);
  const e = JSON.stringify(expected);
  if (a !== e) throw new Failed(`${what}: expected ${e}, got ${a}`);
}

function truly(value, what) {
  if (!value) throw new Failed(what);
}

async function refused(promise, pattern) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    if (!pattern.test(error.message)) throw new Failed(`wrong refusal: ${error.message}`);
    return;
  }
  throw new Failed(`expected a refusal ${pattern}, got ${JSON.stringify(value)}`);
}

const bytes = (...values) => new Uint8Array(values);
const utf8 = (text) => new TextEncoder().encode(text);
const hex = (buffer) =>
  [...new Uint8Array(buffer)].map((b) => b.toString(16).padStart(2, "0")).join("");
const digest = (name, text) => crypto.subtle.digest(name, utf8(text));
const names = (listed, prefix) => listed.objects.map((o) => o.key.slice(prefix.length));
const filled = (size, value) => new Uint8Array(size).fill(value);
const MIB = 1024 * 1024;
const PART = 5 * MIB;

async function many(r2, p, ...keys) {
  for (const key of keys) await r2.put(p + key, key);
}

const cases = {
  // --- put: what may be stored ---
  async put_string(r2, p) {
    await r2.put(p + "a", "grüße");
    same(await (await r2.get(p + "a")).text(), "grüße");
  },
  async put_array_buffer(r2, p) {
    await r2.put(p + "a", bytes(1, 0, 255).buffer);
    same([...new Uint8Array(await (await r2.get(p + "a")).arrayBuffer())], [1, 0, 255]);
  },
  async put_typed_array_window(r2, p) {
    await r2.put(p + "a", bytes(9, 1, 2, 9).subarray(1, 3));
    same([...new Uint8Array(await (await r2.get(p + "a")).arrayBuffer())], [1, 2]);
  },
  async put_data_view(r2, p) {
    await r2.put(p + "a", new DataView(bytes(5, 6, 7).buffer, 1, 1));
    same([...new Uint8Array(await (await r2.get(p + "a")).arrayBuffer())], [6]);
  },
  async put_blob(r2, p) {
    await r2.put(p + "a", new Blob(["one ", "two"]));
    same(await (await r2.get(p + "a")).text(), "one two");
  },
  async put_null_is_empty(r2, p) {
    const put = await r2.put(p + "a", null);
    same([put.size, put.etag], [0, "d41d8cd98f00b204e9800998ecf8427e"]);
    same(await (await r2.get(p + "a")).text(), "");
  },
  async put_empty_string(r2, p) {
    same((await r2.put(p + "a", "")).size, 0);
    same((await r2.head(p + "a")).size, 0);
  },
  async put_response_body(r2, p) {
    await r2.put(p + "a", new Response("from a response").body);
    same(await (await r2.get(p + "a")).text(), "from a response");
  },
  async put_request_body(r2, p) {
    const request = new Request("http://x/", { method: "POST", body: "from a request" });
    await r2.put(p + "a", request.body);
    same(await (await r2.get(p + "a")).text(), "from a request");
  },
  async put_fixed_length_stream(r2, p) {
    const { readable, writable } = new FixedLengthStream(6);
    const writer = writable.getWriter();
    const wrote = (async () => {
      await writer.write(utf8("abc"));
      await writer.write(utf8("def"));
      await writer.close();
    })();
    await Promise.all([r2.put(p + "a", readable), wrote]);
    same(await (await r2.get(p + "a")).text(), "abcdef");
  },
  async put_stream_of_unknown_length_is_refused(r2, p) {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    writer.write(utf8("abc")).catch(() => {});
    await refused(r2.put(p + "a", readable), /known length/);
  },
  async put_stream_that_ends_early_stores_nothing(r2, p) {
    await r2.put(p + "a", "old");
    const { readable, writable } = new FixedLengthStream(100);
    const writer = writable.getWriter();
    const put = r2.put(p + "a", readable);
    await writer.write(utf8("only this"));
    await writer.abort(new Error("gone")).catch(() => {});
    let failed = false;
    await put.catch(() => (failed = true));
    truly(failed, "the put must fail");
    same(await (await r2.get(p + "a")).text(), "old");
  },
  async put_large(r2, p) {
    const value = filled(3 * MIB + 17, 7);
    value[value.length - 1] = 9;
    same((await r2.put(p + "a", value)).size, value.length);
    const back = new Uint8Array(await (await r2.get(p + "a")).arrayBuffer());
    same([back.length, back[0], back[back.length - 2], back[back.length - 1]],
      [value.length, 7, 7, 9]);
  },
  async put_overwrites(r2, p) {
    const one = await r2.put(p + "a", "one", { customMetadata: { a: "1" } });
    const two = await r2.put(p + "a", "two");
    truly(one.version !== two.version, "a new version");
    const back = await r2.get(p + "a");
    same([await back.text(), back.customMetadata, back.version], ["two", {}, two.version]);
  },
  async put_same_bytes_under_two_keys(r2, p) {
    await r2.put(p + "a", "shared");
    await r2.put(p + "b", "shared");
    await r2.delete(p + "a");
    same(await (await r2.get(p + "b")).text(), "shared");
  },
  async put_at_once_leaves_one_whole_value(r2, p) {
    const values = [..."abcdefgh"].map((c) => c.repeat(1000));
    await Promise.all(values.map((v) => r2.put(p + "a", v)));
    truly(values.includes(await (await r2.get(p + "a")).text()), "one of them, whole");
  },

  // --- what an object says of itself ---
  async object_members_of_put(r2, p) {
    const before = Date.now() - 5000;
    const o = await r2.put(p + "a", "hello");
    same([o.key, o.size, o.etag], [p + "a", 5, "5d41402abc4b2a76b9719d911017c592"]);
    same(o.httpEtag, `"${o.etag}"`);
    truly(o.uploaded instanceof Date && o.uploaded.getTime() > before, "uploaded is a Date");
    truly(/^[0-9a-f]{32}$/.test(o.version), "version");
    same(o.storageClass, "Standard");
  },
  async object_members_of_get_and_head_agree(r2, p) {
    await r2.put(p + "a", "hello", { customMetadata: { k: "v" } });
    const got = await r2.get(p + "a");
    const head = await r2.head(p + "a");
    for (const name of ["key", "version", "size", "etag", "httpEtag", "uploaded",
      "customMetadata", "httpMetadata", "storageClass"]) same(got[name], head[name], name);
    await got.text();
  },
  async checksums_md5_is_always_there(r2, p) {
    const o = await r2.put(p + "a", "hello");
    same(hex(o.checksums.md5), "5d41402abc4b2a76b9719d911017c592");
    same((await r2.head(p + "a")).checksums.toJSON(), { md5: "5d41402abc4b2a76b9719d911017c592" });
  },
  async storage_class_is_kept(r2, p) {
    const o = await r2.put(p + "a", "x", { storageClass: "InfrequentAccess" });
    same(o.storageClass, "InfrequentAccess");
    same((await r2.head(p + "a")).storageClass, "InfrequentAccess");
  },
  async storage_class_unknown_is_refused(r2, p) {
    await refused(r2.put(p + "a", "x", { storageClass: "Deep" }), /^put: .*\(10029\)$/s);
    same(await r2.head(p + "a"), null);
  },
  async customer_keys_are_refused_by_name(r2, p) {
    await refused(r2.put(p + "a", "x", { ssecKey: "ab".repeat(32) }), /not emulated/);
  },

  // --- metadata ---
  async http_metadata_all_fields(r2, p) {
    const httpMetadata = {
      contentType: "image/png", contentLanguage: "de", contentDisposition: "inline",
      contentEncoding: "identity", cacheControl: "max-age=1", cacheExpiry: new Date(1700000000000),
    };
    await r2.put(p + "a", "x", { httpMetadata });
    same((await r2.head(p + "a")).httpMetadata, httpMetadata);
  },
  async http_metadata_from_headers(r2, p) {
    const headers = new Headers({ "content-type": "text/css", "cache-control": "no-cache",
      expires: "Tue, 14 Nov 2023 22:13:20 GMT", "x-other": "dropped" });
    await r2.put(p + "a", "x", { httpMetadata: headers });
    same((await r2.head(p + "a")).httpMetadata, { contentType: "text/css",
      cacheControl: "no-cache", cacheExpiry: new Date(1700000000000) });
  },
  async http_metadata_write(r2, p) {
    await r2.put(p + "a", "x", { httpMetadata: { contentType: "text/html", contentLanguage: "fr",
      cacheExpiry: new Date(0) } });
    const headers = new Headers();
    (await r2.head(p + "a")).writeHttpMetadata(headers);
    same([...headers], [["content-language", "fr"], ["content-type", "text/html"],
      ["expires", "Thu, 01 Jan 1970 00:00:00 GMT"]]);
  },
  async http_metadata_none(r2, p) {
    await r2.put(p + "a", "x");
    same((await r2.head(p + "a")).httpMetadata, {});
  },
  async custom_metadata_round_trip(r2, p) {
    const customMetadata = { Upper: "A", ключ: "значение", emoji: "🙂", empty: "" };
    const put = await r2.put(p + "a", "x", { customMetadata });
    same(put.customMetadata, customMetadata);
    same((await r2.head(p + "a")).customMetadata, customMetadata);
  },
  async custom_metadata_8192_bytes_fit(r2, p) {
    await r2.put(p + "a", "x", { customMetadata: { k: "v".repeat(8191) } });
    same((await r2.head(p + "a")).customMetadata.k.length, 8191);
  },
  async custom_metadata_8193_bytes_do_not(r2, p) {
    await refused(r2.put(p + "a", "x", { customMetadata: { k: "v".repeat(8192) } }),
      /^put: Your metadata headers exceed the maximum allowed metadata size. \(10012\)$/);
    same(await r2.head(p + "a"), null);
  },
  async custom_metadata_is_counted_in_bytes(r2, p) {
    await refused(r2.put(p + "a", "x", { customMetadata: { k: "é".repeat(4096) } }), /10012/);
  },

  // --- keys ---
  async keys_are_opaque(r2, p) {
    const odd = ["../up", "/slash", "a//b", ".", "..", "a\\b", "%2f", "CON", "dot.", "space ",
      "🙂", "new\nline", "tab\t", "quote\"", "nul\0nul", "?x=1#y"];
    for (const key of odd) await r2.put(p + key, key);
    for (const key of odd) same(await (await r2.get(p + key)).text(), key, JSON.stringify(key));
    same((await r2.list({ prefix: p })).objects.length, odd.length);
  },
  async keys_differ_by_case_and_normal_form(r2, p) {
    const keys = ["a", "A", "\u00e9", "e\u0301"];
    for (const key of keys) await r2.put(p + key, key);
    for (const key of keys) same(await (await r2.get(p + key)).text(), key);
  },
  async key_of_1024_bytes(r2, p) {
    const key = p + "é".repeat(Math.floor((1024 - utf8(p).length) / 2));
    const full = key + "x".repeat(1024 - utf8(key).length);
    await r2.put(full, "x");
    same((await r2.head(full)).key, full);
    await r2.delete(full);
  },
  async key_of_1025_bytes_is_refused(r2, p) {
    const key = p + "x".repeat(1025 - p.length);
    const said = /The specified object name is not valid. \(10020\)$/;
    await refused(r2.put(key, "x"), said);
    await refused(r2.get(key), said);
    await refused(r2.head(key), said);
    await refused(r2.delete(key), said);
    await refused(r2.createMultipartUpload(key), said);
  },
  async key_empty_is_refused(r2) {
    await refused(r2.put("", "x"), /10020/);
  },

  // --- get ---
  async get_missing_is_null(r2, p) {
    same(await r2.get(p + "none"), null);
    same(await r2.head(p + "none"), null);
  },
  async get_json(r2, p) {
    await r2.put(p + "a", JSON.stringify({ n: [1, 2] }));
    same(await (await r2.get(p + "a")).json(), { n: [1, 2] });
  },
  async get_blob_has_the_type(r2, p) {
    await r2.put(p + "a", "x", { httpMetadata: { contentType: "image/gif" } });
    const blob = await (await r2.get(p + "a")).blob();
    same([blob.type, await blob.text()], ["image/gif", "x"]);
  },
  async get_bytes(r2, p) {
    await r2.put(p + "a", bytes(3, 2, 1));
    same([...(await (await r2.get(p + "a")).bytes())], [3, 2, 1]);
  },
  async get_body_is_a_stream(r2, p) {
    await r2.put(p + "a", "streamed");
    const got = await r2.get(p + "a");
    truly(got.body instanceof ReadableStream, "body is a stream");
    same([got.bodyUsed, await new Response(got.body).text(), got.bodyUsed],
      [false, "streamed", true]);
  },
  async get_body_only_once(r2, p) {
    await r2.put(p + "a", "once");
    const got = await r2.get(p + "a");
    await got.text();
    await refused(got.text(), /already been used/);
  },
  async get_body_left_unread(r2, p) {
    await r2.put(p + "a", filled(2 * MIB, 1));
    for (let i = 0; i < 5; i++) await (await r2.get(p + "a")).body.cancel();
    await r2.delete(p + "a");
    same(await r2.head(p + "a"), null);
  },
  async get_while_it_is_overwritten(r2, p) {
    await r2.put(p + "a", filled(4 * MIB, 1));
    const got = await r2.get(p + "a");
    await r2.put(p + "a", filled(4 * MIB, 2));
    const back = new Uint8Array(await got.arrayBuffer());
    truly(back.length === 4 * MIB && back.every((b) => b === 1), "the old value, whole");
  },

  // --- ranges ---
  async range_offset_and_length(r2, p) {
    await r2.put(p + "a", "0123456789");
    const got = await r2.get(p + "a", { range: { offset: 2, length: 3 } });
    same([await got.text(), got.range, got.size], ["234", { offset: 2, length: 3 }, 10]);
  },
  async range_offset_only(r2, p) {
    await r2.put(p + "a", "0123456789");
    const got = await r2.get(p + "a", { range: { offset: 7 } });
    same([await got.text(), got.range], ["789", { offset: 7, length: 3 }]);
  },
  async range_length_only(r2, p) {
    await r2.put(p + "a", "0123456789");
    same(await (await r2.get(p + "a", { range: { length: 4 } })).text(), "0123");
  },
  async range_suffix(r2, p) {
    await r2.put(p + "a", "0123456789");
    const got = await r2.get(p + "a", { range: { suffix: 4 } });
    same([await got.text(), got.range], ["6789", { offset: 6, length: 4 }]);
  },
  async range_suffix_longer_than_the_object(r2, p) {
    await r2.put(p + "a", "0123");
    same(await (await r2.get(p + "a", { range: { suffix: 99 } })).text(), "0123");
  },
  async range_length_past_the_end(r2, p) {
    await r2.put(p + "a", "0123");
    const got = await r2.get(p + "a", { range: { offset: 2, length: 99 } });
    same([await got.text(), got.range], ["23", { offset: 2, length: 2 }]);
  },
  async range_headers(r2, p) {
    await r2.put(p + "a", "0123456789");
    for (const [range, text] of [["bytes=1-3", "123"], ["bytes=8-", "89"], ["bytes=-2", "89"],
      ["bytes=0-999", "0123456789"]])
      same(await (await r2.get(p + "a", { range: new Headers({ range }) })).text(), text, range);
  },
  async range_headers_that_http_ignores(r2, p) {
    await r2.put(p + "a", "0123");
    for (const range of ["bytes=0-1,2-3", "lines=1-2", "bytes=3-1", "bytes=-", "x"])
      same(await (await r2.get(p + "a", { range: new Headers({ range }) })).text(), "0123", range);
  },
  async range_unsatisfiable(r2, p) {
    await r2.put(p + "a", "0123");
    const said = /^get: The requested range is not satisfiable \(10039\)$/;
    for (const range of [{ offset: 4 }, { offset: 9 }, { length: 0 }, { suffix: 0 }])
      await refused(r2.get(p + "a", { range }), said);
    await refused(r2.get(p + "a", { range: new Headers({ range: "bytes=9-" }) }), said);
  },
  async range_negative_is_a_range_error(r2, p) {
    await r2.put(p + "a", "0123");
    await refused(r2.get(p + "a", { range: { offset: -1 } }), /greater than or equal to 0/);
  },
  async range_across_chunks(r2, p) {
    const value = new Uint8Array(MIB).map((_, i) => i % 251);
    await r2.put(p + "a", value);
    const got = await r2.get(p + "a", { range: { offset: 262143, length: 300000 } });
    const back = new Uint8Array(await got.arrayBuffer());
    truly(back.length === 300000 && back.every((b, i) => b === (i + 262143) % 251), "the window");
  },
  async range_echo_without_range(r2, p) {
    await r2.put(p + "a", "0123");
    const got = await r2.get(p + "a");
    same(got.range, { offset: 0, length: 4 });
    await got.text();
  },

  // --- conditions of get ---
  async get_if_etag_matches(r2, p) {
    const { etag } = await r2.put(p + "a", "x");
    same(await (await r2.get(p + "a", { onlyIf: { etagMatches: etag } })).text(), "x");
  },
  async get_if_etag_matches_fails_without_body(r2, p) {
    await r2.put(p + "a", "x", { customMetadata: { k: "v" } });
    const got = await r2.get(p + "a", { onlyIf: { etagMatches: "0".repeat(32) } });
    same([got.key, got.body, "body" in got, got.customMetadata], [p + "a", undefined, false, { k: "v" }]);
  },
  async get_if_etag_differs(r2, p) {
    const { etag } = await r2.put(p + "a", "x");
    same((await r2.get(p + "a", { onlyIf: { etagDoesNotMatch: etag } })).body, undefined);
    const got = await r2.get(p + "a", { onlyIf: { etagDoesNotMatch: "other" } });
    same(await got.text(), "x");
  },
  async get_if_uploaded_before(r2, p) {
    const { uploaded } = await r2.put(p + "a", "x");
    const later = new Date(uploaded.getTime() + 1);
    same(await (await r2.get(p + "a", { onlyIf: { uploadedBefore: later } })).text(), "x");
    same((await r2.get(p + "a", { onlyIf: { uploadedBefore: uploaded } })).body, undefined);
  },
  async get_if_uploaded_after(r2, p) {
    const { uploaded } = await r2.put(p + "a", "x");
    const sooner = new Date(uploaded.getTime() - 1);
    same(await (await r2.get(p + "a", { onlyIf: { uploadedAfter: sooner } })).text(), "x");
    same((await r2.get(p + "a", { onlyIf: { uploadedAfter: uploaded } })).body, undefined);
    same(await (await r2.get(p + "a", { onlyIf: { uploadedAfter: new Date(-1) } })).text(), "x");
  },
  async get_if_etag_outranks_time(r2, p) {
    const { etag, uploaded } = await r2.put(p + "a", "x");
    const onlyIf = { etagMatches: etag, uploadedBefore: new Date(uploaded.getTime() - 1000) };
    same(await (await r2.get(p + "a", { onlyIf })).text(), "x");
  },
  async get_if_headers(r2, p) {
    const { httpEtag, uploaded } = await r2.put(p + "a", "x");
    const get = async (fields) => {
      const got = await r2.get(p + "a", { onlyIf: new Headers(fields) });
      return got.body ? await got.text() : null;
    };
    same(await get({ "if-match": `"no", ${httpEtag}` }), "x");
    same(await get({ "if-match": `W/${httpEtag}` }), null);
    same(await get({ "if-match": "*" }), "x");
    same(await get({ "if-none-match": `W/${httpEtag}` }), null);
    same(await get({ "if-none-match": '"no"' }), "x");
    const past = new Date(uploaded.getTime() - 60000).toUTCString();
    const future = new Date(uploaded.getTime() + 60000).toUTCString();
    same(await get({ "if-modified-since": past }), "x");
    same(await get({ "if-modified-since": future }), null);
    same(await get({ "if-unmodified-since": future }), "x");
    same(await get({ "if-unmodified-since": past }), null);
  },
  async get_if_quoted_etag_is_a_type_error(r2, p) {
    await refused(r2.get(p + "a", { onlyIf: { etagMatches: '"x"' } }), /wrapped in quotes/);
  },
  async get_missing_with_condition_is_null(r2, p) {
    same(await r2.get(p + "none", { onlyIf: { etagMatches: "x" } }), null);
  },

  // --- conditions of put ---
  async put_if_absent(r2, p) {
    const onlyIf = new Headers({ "if-none-match": "*" });
    truly(await r2.put(p + "a", "one", { onlyIf }), "stored");
    same(await r2.put(p + "a", "two", { onlyIf }), null);
    same(await (await r2.get(p + "a")).text(), "one");
  },
  async put_if_etag_matches(r2, p) {
    const { etag } = await r2.put(p + "a", "one");
    truly(await r2.put(p + "a", "two", { onlyIf: { etagMatches: etag } }), "stored");
    same(await r2.put(p + "a", "three", { onlyIf: { etagMatches: etag } }), null);
    same(await (await r2.get(p + "a")).text(), "two");
  },
  async put_if_etag_matches_on_nothing(r2, p) {
    same(await r2.put(p + "a", "x", { onlyIf: { etagMatches: "x" } }), null);
    same(await r2.put(p + "a", "x", { onlyIf: new Headers({ "if-match": "*" }) }), null);
    same(await r2.head(p + "a"), null);
  },
  async put_if_uploaded_before(r2, p) {
    await r2.put(p + "a", "one");
    same(await r2.put(p + "a", "two", { onlyIf: { uploadedBefore: new Date(1000) } }), null);
    truly(await r2.put(p + "b", "new", { onlyIf: { uploadedBefore: new Date(1000) } }), "stored");
  },
  async put_if_uploaded_after_on_nothing(r2, p) {
    same(await r2.put(p + "a", "x", { onlyIf: { uploadedAfter: new Date(1000) } }), null);
  },
  async put_if_fails_with_a_large_body(r2, p) {
    await r2.put(p + "a", "old");
    same(await r2.put(p + "a", filled(3 * MIB, 1), { onlyIf: { etagMatches: "no" } }), null);
    same(await (await r2.get(p + "a")).text(), "old");
  },
  async put_if_absent_at_once_lets_one_win(r2, p) {
    const onlyIf = { etagDoesNotMatch: "*" };
    const puts = await Promise.all([..."abcdef"].map((c) => r2.put(p + "a", c, { onlyIf })));
    same(puts.filter((o) => o !== null).length, 1);
  },

  // --- checksums of put ---
  async checksum_md5(r2, p) {
    await r2.put(p + "a", "hello", { md5: "5d41402abc4b2a76b9719d911017c592" });
    await r2.put(p + "b", "hello", { md5: hexBytes("5d41402abc4b2a76b9719d911017c592") });
    truly(await r2.head(p + "b"), "stored");
  },
  async checksum_md5_wrong(r2, p) {
    await refused(r2.put(p + "a", "hello!", { md5: "5d41402abc4b2a76b9719d911017c592" }),
      /^put: The MD5 checksum you specified did not match what we received\.\nYou provided a MD5 checksum with value: 5d41402abc4b2a76b9719d911017c592\nActual MD5 was: [0-9a-f]{32} \(10037\)$/);
    same(await r2.head(p + "a"), null);
  },
  async checksum_sha1(r2, p) {
    await checksum(r2, p, "sha1", "SHA-1");
  },
  async checksum_sha256(r2, p) {
    await checksum(r2, p, "sha256", "SHA-256");
  },
  async checksum_sha384(r2, p) {
    await checksum(r2, p, "sha384", "SHA-384");
  },
  async checksum_sha512(r2, p) {
    await checksum(r2, p, "sha512", "SHA-512");
  },
  async checksum_of_two_kinds_is_a_type_error(r2, p) {
    await refused(r2.put(p + "a", "x", { md5: "0".repeat(32), sha1: "0".repeat(40) }),
      /multiple hashing algorithms/);
  },
  async checksum_wrong_keeps_the_old_object(r2, p) {
    await r2.put(p + "a", "old");
    await refused(r2.put(p + "a", filled(MIB, 1), { sha256: "0".repeat(64) }), /10037/);
    same(await (await r2.get(p + "a")).text(), "old");
  },

  // --- delete ---
  async delete_one(r2, p) {
    await many(r2, p, "a", "b");
    same(await r2.delete(p + "a"), undefined);
    same([await r2.head(p + "a"), (await r2.head(p + "b")).size], [null, 1]);
  },
  async delete_missing_is_fine(r2, p) {
    same(await r2.delete(p + "none"), undefined);
  },
  async delete_many(r2, p) {
    await many(r2, p, "a", "b", "c");
    await r2.delete([p + "a", p + "c", p + "none"]);
    same(names(await r2.list({ prefix: p }), p), ["b"]);
  },
  async delete_none(r2, p) {
    await many(r2, p, "a");
    await r2.delete([]);
    same((await r2.list({ prefix: p })).objects.length, 1);
  },
  async delete_1000(r2, p) {
    await many(r2, p, "0", "999", "1000");
    await r2.delete(Array.from({ length: 1000 }, (_, i) => p + i));
    same(names(await r2.list({ prefix: p }), p), ["1000"]);
  },
  async delete_1001_is_refused(r2, p) {
    await many(r2, p, "0");
    await refused(r2.delete(Array.from({ length: 1001 }, (_, i) => p + i)), /^delete: .*1000.*1001/);
    same((await r2.list({ prefix: p })).objects.length, 1);
  },

  // --- list ---
  async list_empty(r2, p) {
    const listed = await r2.list({ prefix: p });
    same([listed.objects, listed.truncated, listed.cursor, listed.delimitedPrefixes],
      [[], false, undefined, []]);
  },
  async list_in_order_of_bytes(r2, p) {
    await many(r2, p, "b", "a", "B", "é", "z", "a/b", "a.b", "\uffee", "🙂");
    same(names(await r2.list({ prefix: p }), p),
      ["B", "a", "a.b", "a/b", "b", "z", "é", "\uffee", "🙂"]);
  },
  async list_prefix_is_text_not_a_pattern(r2, p) {
    await many(r2, p, "a%b", "axb", "a_b", "A%b");
    same(names(await r2.list({ prefix: p + "a%" }), p), ["a%b"]);
    same(names(await r2.list({ prefix: p + "a_" }), p), ["a_b"]);
  },
  async list_limit_and_cursor(r2, p) {
    await many(r2, p, "a", "b", "c", "d", "e");
    const seen = [];
    let cursor;
    for (;;) {
      const page = await r2.list({ prefix: p, limit: 2, cursor });
      seen.push(names(page, p).join(""));
      if (!page.truncated) {
        same(page.cursor, undefined);
        break;
      }
      cursor = page.cursor;
    }
    same(seen, ["ab", "cd", "e"]);
  },
  async list_limit_exact_is_not_truncated(r2, p) {
    await many(r2, p, "a", "b");
    const page = await r2.list({ prefix: p, limit: 2 });
    same([page.truncated, page.objects.length], [false, 2]);
  },
  async list_limit_out_of_bounds(r2, p) {
    for (const limit of [0, 1001])
      await refused(r2.list({ prefix: p, limit }),
        /^list: MaxKeys params must be positive integer <= 1000. \(10022\)$/);
  },
  async list_start_after(r2, p) {
    await many(r2, p, "a", "b", "c");
    same(names(await r2.list({ prefix: p, startAfter: p + "a" }), p), ["b", "c"]);
    same(names(await r2.list({ prefix: p, startAfter: p + "bb" }), p), ["c"]);
    same(names(await r2.list({ prefix: p, startAfter: p }), p), ["a", "b", "c"]);
  },
  async list_delimiter(r2, p) {
    await many(r2, p, "top", "x/1", "x/2", "x/y/3", "z/4");
    const listed = await r2.list({ prefix: p, delimiter: "/" });
    same([names(listed, p), listed.delimitedPrefixes], [["top"], [p + "x/", p + "z/"]]);
    const below = await r2.list({ prefix: p + "x/", delimiter: "/" });
    same([names(below, p), below.delimitedPrefixes], [["x/1", "x/2"], [p + "x/y/"]]);
  },
  async list_delimiter_of_many_characters(r2, p) {
    await many(r2, p, "a--b", "a-b", "c--d--e");
    const listed = await r2.list({ prefix: p, delimiter: "--" });
    same([names(listed, p), listed.delimitedPrefixes], [["a-b"], [p + "a--", p + "c--"]]);
  },
  async list_delimiter_pages_never_repeat_a_prefix(r2, p) {
    await many(r2, p, "a", "b/1", "b/2", "b/3", "c", "d/1", "d/2", "e");
    const seen = [];
    let cursor;
    for (;;) {
      const page = await r2.list({ prefix: p, delimiter: "/", limit: 2, cursor });
      seen.push([...names(page, p), ...page.delimitedPrefixes.map((x) => x.slice(p.length))]);
      if (!page.truncated) break;
      cursor = page.cursor;
    }
    same(seen, [["a", "b/"], ["c", "d/"], ["e"]]);
  },
  async list_without_include_has_no_metadata(r2, p) {
    await r2.put(p + "a", "x", { customMetadata: { k: "v" }, httpMetadata: { contentType: "a/b" } });
    const [o] = (await r2.list({ prefix: p })).objects;
    same([o.customMetadata, o.httpMetadata, o.size], [undefined, undefined, 1]);
    try {
      o.writeHttpMetadata(new Headers());
      throw new Failed("writeHttpMetadata must refuse");
    } catch (error) {
      truly(/include/.test(error.message), error.message);
    }
  },
  async list_include_both(r2, p) {
    await r2.put(p + "a", "x", { customMetadata: { k: "v" }, httpMetadata: { contentType: "a/b" } });
    const [o] = (await r2.list({ prefix: p, include: ["httpMetadata", "customMetadata"] })).objects;
    same([o.customMetadata, o.httpMetadata], [{ k: "v" }, { contentType: "a/b" }]);
  },
  async list_include_custom_only(r2, p) {
    await r2.put(p + "a", "x", { customMetadata: { k: "v" }, httpMetadata: { contentType: "a/b" } });
    const [o] = (await r2.list({ prefix: p, include: ["customMetadata"] })).objects;
    same([o.customMetadata, o.httpMetadata], [{ k: "v" }, undefined]);
  },
  async list_include_unknown_is_a_range_error(r2, p) {
    await refused(r2.list({ prefix: p, include: ["body"] }), /Unsupported include/);
  },
  async list_objects_carry_their_facts(r2, p) {
    const put = await r2.put(p + "a", "hello");
    const [o] = (await r2.list({ prefix: p })).objects;
    same([o.key, o.version, o.size, o.etag, o.httpEtag, o.uploaded, o.storageClass],
      [put.key, put.version, put.size, put.etag, put.httpEtag, put.uploaded, "Standard"]);
    same(o.checksums.toJSON(), { md5: put.etag });
  },
  async list_with_metadata_too_large_for_one_page(r2, p) {
    const customMetadata = { k: "v".repeat(8000) };
    for (let at = 0; at < 130; at += 26)
      await Promise.all(Array.from({ length: 26 }, (_, i) =>
        r2.put(p + String(at + i).padStart(3, "0"), "x", { customMetadata })));
    const seen = [];
    let cursor;
    let pages = 0;
    do {
      const page = await r2.list({ prefix: p, include: ["customMetadata"], cursor });
      seen.push(...names(page, p));
      pages += 1;
      cursor = page.truncated ? page.cursor : undefined;
    } while (cursor);
    same([seen.length, new Set(seen).size], [130, 130]);
    truly(pages > 1, "more than one page");
  },
  async list_cursor_tampered_is_refused(r2, p) {
    await many(r2, p, "a", "b");
    const { cursor } = await r2.list({ prefix: p, limit: 1 });
    const other = (cursor[0] === "A" ? "B" : "A") + cursor.slice(1);
    await refused(r2.list({ prefix: p, cursor: other }), /^list: .*cursor.*\(10029\)$/);
    await refused(r2.list({ prefix: p, cursor: "?" }), /10029/);
  },

  // --- multipart ---
  async multipart_of_one_small_part(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a", {
      customMetadata: { k: "v" }, httpMetadata: { contentType: "text/plain" } });
    same([upload.key, typeof upload.uploadId], [p + "a", "string"]);
    const part = await upload.uploadPart(1, "hello");
    same([part.partNumber, part.etag], [1, "5d41402abc4b2a76b9719d911017c592"]);
    const o = await upload.complete([part]);
    const sum = hex(await crypto.subtle.digest("MD5", hexBytes(part.etag)));
    same([o.size, o.etag], [5, `${sum}-1`]);
    const got = await r2.get(p + "a");
    same([await got.text(), got.customMetadata, got.httpMetadata, got.checksums.toJSON()],
      ["hello", { k: "v" }, { contentType: "text/plain" }, {}]);
  },
  async multipart_of_two_parts(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const two = await upload.uploadPart(2, "tail");
    const one = await upload.uploadPart(1, filled(PART, 65));
    const o = await upload.complete([one, two]);
    const sums = new Uint8Array([...hexBytes(one.etag), ...hexBytes(two.etag)]);
    const expected = hex(await crypto.subtle.digest("MD5", sums)) + "-2";
    same([o.size, o.etag, o.httpEtag], [PART + 4, expected, `"${expected}"`]);
    const got = await r2.get(p + "a", { range: { offset: PART - 2, length: 4 } });
    same(await got.text(), "AAta");
    same(await (await r2.get(p + "a", { range: { suffix: 4 } })).text(), "tail");
    const whole = new Uint8Array(await (await r2.get(p + "a")).arrayBuffer());
    same([whole.length, whole[0], whole[PART]], [PART + 4, 65, 116]);
  },
  async multipart_parts_in_any_order(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const one = await upload.uploadPart(1, filled(PART, 1));
    const two = await upload.uploadPart(2, filled(PART, 2));
    await upload.complete([two, one]);
    const got = await r2.get(p + "a", { range: { offset: PART - 1, length: 2 } });
    same([...(await got.bytes())], [1, 2]);
  },
  async multipart_is_invisible_until_complete(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const part = await upload.uploadPart(1, "x");
    same([await r2.head(p + "a"), (await r2.list({ prefix: p })).objects.length], [null, 0]);
    await upload.complete([part]);
    same((await r2.head(p + "a")).size, 1);
  },
  async multipart_resume(r2, p) {
    const { uploadId } = await r2.createMultipartUpload(p + "a");
    const upload = r2.resumeMultipartUpload(p + "a", uploadId);
    const part = await upload.uploadPart(1, "resumed");
    await upload.complete([part]);
    same(await (await r2.get(p + "a")).text(), "resumed");
  },
  async multipart_part_uploaded_again_replaces(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const old = await upload.uploadPart(1, "old");
    const part = await upload.uploadPart(1, "new");
    await refused(upload.complete([old]), /\(10025\)/);
    await upload.complete([part]);
    same(await (await r2.get(p + "a")).text(), "new");
  },
  async multipart_complete_with_some_of_the_parts(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    await upload.uploadPart(1, "left out");
    const part = await upload.uploadPart(5, "kept");
    await upload.complete([part]);
    same(await (await r2.get(p + "a")).text(), "kept");
  },
  async multipart_overwrites(r2, p) {
    await r2.put(p + "a", "old");
    const upload = await r2.createMultipartUpload(p + "a");
    await upload.complete([await upload.uploadPart(1, "new")]);
    same(await (await r2.get(p + "a")).text(), "new");
    await r2.put(p + "a", "newest");
    same(await (await r2.get(p + "a")).text(), "newest");
  },
  async multipart_wrong_etag(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    await upload.uploadPart(1, "x");
    await refused(upload.complete([{ partNumber: 1, etag: "no" }]),
      /^completeMultipartUpload: One or more of the specified parts could not be found. \(10025\)$/);
    await refused(upload.complete([{ partNumber: 2, etag: "no" }]), /\(10025\)$/);
  },
  async multipart_small_part_before_the_last(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const one = await upload.uploadPart(1, "small");
    const two = await upload.uploadPart(2, "last");
    await refused(upload.complete([one, two]),
      /^completeMultipartUpload: Your proposed upload is smaller than the minimum allowed object size. \(10011\)$/);
    same(await r2.head(p + "a"), null);
  },
  async multipart_parts_of_unequal_size(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const one = await upload.uploadPart(1, filled(PART, 1));
    const two = await upload.uploadPart(2, filled(PART + 1, 2));
    const three = await upload.uploadPart(3, "end");
    const said = /^completeMultipartUpload: There was a problem with the multipart upload. \(10048\)$/;
    await refused(upload.complete([one, two, three]), said);
    await refused(upload.complete([one, two]), said);
    await upload.complete([one, three]);
    same((await r2.head(p + "a")).size, PART + 3);
  },
  async multipart_same_part_twice(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const part = await upload.uploadPart(1, "x");
    await refused(upload.complete([part, part]), /\(10001\)$/);
  },
  async multipart_abort(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const part = await upload.uploadPart(1, "x");
    same(await upload.abort(), undefined);
    const said = /The specified multipart upload does not exist. \(10024\)$/;
    await refused(upload.uploadPart(1, "x"), said);
    await refused(upload.complete([part]), said);
    same(await upload.abort(), undefined);
    same(await r2.head(p + "a"), null);
  },
  async multipart_after_complete(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const part = await upload.uploadPart(1, "x");
    await upload.complete([part]);
    await refused(upload.uploadPart(2, "y"), /^uploadPart: .*\(10024\)$/);
    await refused(upload.complete([part]), /^completeMultipartUpload: .*\(10024\)$/);
    same(await upload.abort(), undefined);
    same(await (await r2.get(p + "a")).text(), "x");
  },
  async multipart_unknown_id(r2, p) {
    const upload = r2.resumeMultipartUpload(p + "a", "nope");
    await refused(upload.uploadPart(1, "x"), /\(10024\)$/);
    await refused(upload.complete([]), /\(10001\)$/);
    await refused(upload.abort(), /\(10001\)$/);
  },
  async multipart_id_of_another_key(r2, p) {
    const { uploadId } = await r2.createMultipartUpload(p + "a");
    await refused(r2.resumeMultipartUpload(p + "b", uploadId).uploadPart(1, "x"), /\(10024\)$/);
  },
  async multipart_part_numbers(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    for (const number of [0, 10001])
      await refused((async () => upload.uploadPart(number, "x"))(), /between 1 and 10000/);
    const part = await upload.uploadPart(10000, "x");
    await upload.complete([part]);
    same((await r2.head(p + "a")).size, 1);
  },
  async multipart_part_from_a_stream(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const part = await upload.uploadPart(1, new Response("streamed").body);
    await upload.complete([part]);
    same(await (await r2.get(p + "a")).text(), "streamed");
  },
  async multipart_same_bytes_in_two_parts(r2, p) {
    const upload = await r2.createMultipartUpload(p + "a");
    const one = await upload.uploadPart(1, filled(PART, 3));
    const two = await upload.uploadPart(2, filled(PART, 3));
    await upload.complete([one, two]);
    await r2.put(p + "b", filled(PART, 3));
    await r2.delete(p + "b");
    same((await (await r2.get(p + "a")).arrayBuffer()).byteLength, 2 * PART);
  },
  async multipart_metadata_too_large(r2, p) {
    await refused(r2.createMultipartUpload(p + "a", { customMetadata: { k: "v".repeat(9000) } }),
      /^createMultipartUpload: .*\(10012\)$/);
  },
};

function hexBytes(text) {
  return new Uint8Array(text.match(/../g).map((h) => parseInt(h, 16)));
}

async function checksum(r2, p, field, name) {
  const sum = await digest(name, "hello");
  const put = await r2.put(p + "a", "hello", { [field]: sum });
  same(hex(put.checksums[field]), hex(sum));
  await r2.put(p + "b", "hello", { [field]: hex(sum) });
  same((await r2.head(p + "b")).checksums.toJSON()[field], hex(sum));
  await refused(r2.put(p + "c", "other", { [field]: sum }),
    new RegExp(`^put: The ${name} checksum you specified did not match.*\\(10037\\)$`, "s"));
  same(await r2.head(p + "c"), null);
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/cases") return Response.json(Object.keys(cases));
    if (url.pathname !== "/run") return new Response("GET /cases or /run?case=NAME", { status: 404 });
    const name = url.searchParams.get("case");
    if (!Object.hasOwn(cases, name)) {
      return Response.json({ ok: false, detail: `no case ${name}` }, { status: 404 });
    }
    try {
      await cases[name](env.STORAGE, `${name}-${crypto.randomUUID()}/`);
      return Response.json({ ok: true, detail: "" });
    } catch (error) {
      return Response.json({ ok: false, detail: String(error?.stack ?? error) });
    }
  },
};
