// Makes Escrow.json: the ABI, the bytecode and a hash of the sources that they come from, so that nothing but npm is needed to
// see that they belong together, and nothing at all to use them. Without --write it compares.
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

const [folder, compiled, write] = process.argv.slice(2);
const sources = createHash("sha256");
for (const name of fs.readdirSync(path.join(folder, "src")).sort()) {
  sources.update(name + "\n").update(fs.readFileSync(path.join(folder, "src", name)));
}
const { abi, bytecode, deployedBytecode } = JSON.parse(fs.readFileSync(compiled, "utf8"));
const artifact = {
  contract: "Escrow",
  compiler: "0.8.37",
  sources: "sha256:" + sources.digest("hex"),
  abi,
  bytecode: bytecode.object,
  deployedBytecode: deployedBytecode.object,
};
const text = JSON.stringify(artifact, null, 1) + "\n";
const target = path.join(folder, "Escrow.json");
if (write === "--write") {
  fs.writeFileSync(target, text);
} else if (!fs.existsSync(target) || fs.readFileSync(target, "utf8") !== text) {
  console.error("Escrow.json is not what the sources compile to; run settlement/contracts/check --write and look at the difference");
  process.exit(1);
}
console.log(`Escrow.json: ${(deployedBytecode.object.length - 2) / 2} bytes of code, ${artifact.sources}`);
