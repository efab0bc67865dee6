// Uses /v1/videos as a program with OpenAI's package for Node does, and prints a JSON line a step.
//
//   node tests/node/openai_videos.mjs http://127.0.0.1:8000/v1 KEY PICTURE FOLDER
//
// PICTURE is the first frame of some of the videos, and FOLDER gets the files that are downloaded.
// Any KEY does where the service needs none.

import { createReadStream } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey, picture, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const short = { size: "64x48", seconds: "0.5" };

function tell(step, values) {
  console.log(JSON.stringify({ step, ...values }));
}

// The package for Node has no create_and_poll.
async function poll(id) {
  for (;;) {
    const { data: video, response } = await client.videos.retrieve(id).withResponse();
    if (video.status === "completed" || video.status === "failed") return video;
    const wait = Number(response.headers.get("openai-poll-after-ms"));
    if (!(wait > 0)) throw new Error("a video that is being made does not say when to ask again");
    await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 100)));
  }
}

async function download(id, name, query = {}) {
  const response = await client.videos.downloadContent(id, query);
  const file = path.join(folder, name);
  await writeFile(file, Buffer.from(await response.arrayBuffer()));
  return { id, file, type: response.headers.get("content-type") };
}

async function failure(step, call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status, code, type, param, message, requestID } = error;
    tell(step, { name: error.constructor.name, status, code, type, param, message, request_id: requestID });
    return;
  }
  throw new Error(`${step}: the call did not fail`);
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
tell("models", { models });

// Every body is a form: numbers and the package's own fields are sent as text.
const created = await client.videos.create({ prompt: "a cat, 猫", model: "wan2.6", ...short, seed: 7, steps: 2 });
tell("create", created);
tell("completed", await poll(created.id));
tell("download", await download(created.id, "created.mp4"));

const references = {
  // Without a length: the form is sent in chunks while the file is read.
  "upload of a stream": () => createReadStream(picture),
  "upload of bytes": async () => toFile(await readFile(picture), "première image.jpg", { type: "image/jpeg" }),
  "data URI": async () => ({ image_url: `data:image/jpeg;base64,${(await readFile(picture)).toString("base64")}` }),
};
for (const [step, reference] of Object.entries(references)) {
  const input_reference = await reference();
  const video = await client.videos.create({ prompt: step, model: "wan2.6", ...short, input_reference });
  tell(step, await poll(video.id));
}

// The file of a video that is accepted is looked at when its turn comes.
const damaged = new File(["no picture"], "damaged.jpg");
const failed = await poll((await client.videos.create({ prompt: "damaged", input_reference: damaged })).id);
tell("damaged", failed);

// A file that will never be there is asked for once, whatever `maxRetries` is.
let requests = 0;
const counted = client.withOptions({
  fetch: (...call) => {
    requests += 1;
    return fetch(...call);
  },
});
await failure("file of the damaged", () => counted.videos.downloadContent(failed.id));
tell("requests for it", { requests });

// Fields of the service with several values, which the package calls `name[]`.
const faces = [createReadStream(picture), createReadStream(picture)];
const pictures = { input_reference: createReadStream(picture), face_image: faces };
const options = { mask_padding: [0.1, 0.2, 0.3, 0.4], restore_face: false, face_blend: 0.5 };
const swapped = await client.videos.create({ prompt: "a face", ...short, ...pictures, ...options });
tell("swap", await poll(swapped.id));
tell("download of the swap", await download(swapped.id, "swapped.mp4"));

const headers = { "Idempotency-Key": crypto.randomUUID() };
const twice = [];
for (let n = 0; n < 2; n += 1) {
  twice.push((await client.videos.create({ prompt: "once", ...short }, { headers })).id);
}
await poll(twice[0]);
tell("idempotency", { ids: twice });

for (const order of ["desc", "asc"]) {
  const ids = [];
  for await (const video of client.videos.list({ limit: 2, order })) ids.push(video.id);
  tell(`list ${order}`, { ids });
}

tell("delete", await client.videos.delete(created.id));
await failure("deleted", () => client.videos.retrieve(created.id));
await failure("wrong size", () => client.videos.create({ prompt: "a cat", size: "100x64" }));
await failure("objects in a form", () => client.videos.create({ prompt: "a cat", pairs: [{ reference_image: "x" }] }));
await failure("wrong key", () => client.withOptions({ apiKey: "wrong" }).videos.list());
