// node render.js HOST:PORT PROTOS CHARACTER SPEECH.s16 OUT.h264
// Speech (mono, 16 kHz, 16 bits, no header) into a live session, pictures out; what was received as JSON on stdout.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const CHUNK_BYTES = 2 * 16_000 / 50;
const [target, protos, character, speech, output] = process.argv.slice(2);

const definition = loader.loadSync("tango_rt/v1/service.proto", {
  includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
});
const { GestureService } = grpc.loadPackageDefinition(definition).tango_rt.v1;
const client = new GestureService(target, grpc.credentials.createInsecure());

const pictures = [];
const received = { accepted: null, kinds: [], nodes: [], indices: [], finished: [] };
const session = client.StreamGestures();

session.on("data", (response) => {
  if (response.message === "accepted") {
    received.accepted = { width: response.accepted.width, height: response.accepted.height };
    received.config = response.accepted.config;
  } else if (response.message === "frame") {
    pictures.push(response.frame.data);
    received.kinds.push(response.frame.kind);
    received.nodes.push(response.frame.source.node);
    received.indices.push(response.frame.frame_index);
  } else if (response.message === "utterance_finished") {
    received.finished.push(response.utterance_finished);
  }
});
session.on("error", (error) => {
  console.error(`${error.code} ${error.details}`);
  process.exitCode = 1;
});
session.on("end", () => {
  fs.writeFileSync(output, Buffer.concat(pictures));
  console.log(JSON.stringify(received));
  client.close();
});

session.write({ config: { request_id: "node", character, pacing: "PACING_FAST", video_encoding: "VIDEO_ENCODING_H264" } });
const audio = fs.readFileSync(speech);
for (let start = 0; start < audio.length; start += CHUNK_BYTES) {
  const data = audio.subarray(start, start + CHUNK_BYTES);
  session.write({ audio: { data, first_sample_index: start / 2, utterance_id: "clip" } });
}
session.write({ end_of_utterance: { utterance_id: "clip" } });
session.end();
