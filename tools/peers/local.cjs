// Preloaded into lumigo-cli for a benchmark: aws-sdk v2 reads no endpoint from the environment, and
// what the tool reports about its use is kept on this machine.
"use strict";
const Module = require("node:module");

const load = Module._load;
Module._load = function (name, ...rest) {
  if (name === "analytics-node") {
    return class {
      track() {}
    };
  }
  const loaded = load.call(this, name, ...rest);
  if (name === "aws-sdk") {
    loaded.config.update({ sqs: { endpoint: process.env.AWS_ENDPOINT_URL_SQS } });
  }
  return loaded;
};
