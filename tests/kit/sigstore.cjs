// Signs with a new key by sigstore's own libraries (@sigstore/sign), and attaches to images by @sigstore/oci.
//
// argv: JSON {"file": PATH, "images": [["HOST/NAME", "sha256:HEX", STATEMENT'S TYPE], ...]}
// prints: JSON {"public": PEM, "signature": base64, "bundle": of the file}
const { createHash, generateKeyPairSync, sign } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { bundleToJSON } = require('@sigstore/bundle');
const { attachArtifactToImage } = require('@sigstore/oci');
const { DSSEBundleBuilder, MessageSignatureBundleBuilder } = require('@sigstore/sign');

const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = publicKey.export({ type: 'spki', format: 'pem' });
const hint = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
const signer = {
  sign: async (data) => ({
    signature: sign('sha256', data, privateKey),
    key: { $case: 'publicKey', publicKey: pem, hint },
  }),
};

async function signFile(path) {
  const data = readFileSync(path);
  const bundle = await new MessageSignatureBundleBuilder({ signer, witnesses: [] }).create({ data });
  return { signature: sign('sha256', data, privateKey).toString('base64'), bundle: bundleToJSON(bundle) };
}

async function signImage(imageName, imageDigest, predicateType) {
  const [algorithm, hex] = imageDigest.split(':');
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ digest: { [algorithm]: hex } }],
    predicateType,
    predicate: {},
  };
  const bundle = await new DSSEBundleBuilder({ signer, witnesses: [] }).create({
    data: Buffer.from(JSON.stringify(statement)),
    type: 'application/vnd.in-toto+json',
  });
  await attachArtifactToImage({
    imageName,
    imageDigest,
    artifact: Buffer.from(JSON.stringify(bundleToJSON(bundle))),
    mediaType: bundle.mediaType,
    annotations: { 'dev.sigstore.bundle.content': 'dsse-envelope', 'dev.sigstore.bundle.predicateType': predicateType },
  });
}

async function main() {
  const asked = JSON.parse(process.argv[2]);
  for (const image of asked.images) await signImage(...image);
  console.log(JSON.stringify({ public: pem, ...(await signFile(asked.file)) }));
}

main();
