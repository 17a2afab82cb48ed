// Reads /docs as a person would: opens it, gives the token, tries one request. Fails on any complaint of the browser and on any request to elsewhere.
// Arguments: where playwright-core is, the browser, the gateway's address, its token.
import { createRequire } from 'node:module';

const [driver, browserPath, base, token] = process.argv.slice(2);
const { chromium } = createRequire(driver)('playwright-core');
const quiet = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const browser = await chromium.launch({ executablePath: browserPath, args: quiet });
const page = await browser.newPage();
const complaints = [];
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
});
page.on('pageerror', (error) => complaints.push(`page: ${error.message}`));
page.on('requestfailed', (request) => complaints.push(`failed: ${request.url()}`));
page.on('request', (request) => {
  if (!request.url().startsWith(`${base}/`) && !request.url().startsWith('data:')) complaints.push(`elsewhere: ${request.url()}`);
});
await page.goto(`${base}/docs`, { waitUntil: 'networkidle' });
await page.waitForSelector('.opblock');

const api = await (await fetch(`${base}/openapi.json`)).json();
const methods = ['get', 'put', 'post', 'delete', 'head'];
const described = Object.values(api.paths).flatMap((item) => Object.keys(item).filter((method) => methods.includes(method)));
const shown = await page.locator('.opblock').count();
if (shown !== described.length) complaints.push(`${shown} operations are shown of ${described.length}`);

await page.click('.btn.authorize');
const bearer = page.locator('.auth-container', { hasText: 'http, Bearer' });
await bearer.locator('input').fill(token);
await bearer.locator('.auth-btn-wrapper .authorize').click();
await page.locator('.btn-done').first().click();
const operation = page.locator('#operations-providers-listProviders');
await operation.locator('.opblock-summary-control').click();
await operation.locator('.execute').click();
const status = operation.locator('.live-responses-table tbody .response-col_status').first();
await status.waitFor();
const tried = (await status.textContent()).trim().slice(0, 3);
await browser.close();
if (complaints.length > 0 || tried !== '200') {
  console.error(tried, complaints.join('\n'));
  process.exit(1);
}
console.log(`every operation is shown, and one was tried: ${tried}`);
