// Unpacks the Chromium that is in the npm package into the folder .chromium beside this file, with
// the libraries (NSS) that it needs and that a bare machine does not have.
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const target = join(here, ".chromium");
const making = join(here, ".chromium.making");
rmSync(making, { recursive: true, force: true });
rmSync(target, { recursive: true, force: true });
mkdirSync(making);
process.env.TMPDIR = making; // where the package unpacks to
process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs22.x"; // has it unpack the libraries too
const { default: chromium } = await import("@sparticuz/chromium");
await chromium.executablePath();
renameSync(making, target);
